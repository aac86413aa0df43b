"""Weights of which whole vectors are zero: only the others are stored, with the row that each belongs to.

A section is a vector of outputs, at one place of the window of a convolution; its rows are input channels. Kernels walk the rows
of a section that are stored, so that time and memory fall with the vectors that are zero, wherever they are. What is skipped is
taken for zero whatever the input is, infinities and NaN included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.core import Core, Scalars
from graphopt.backends.kernels.tile_cost import step_cycles

Array = np.ndarray[Any, Any]

FEW_ZEROS = 0.9
"""Share of the weights that are not zero from which skipping others cannot pay."""

WALK = 3.0
"""Cycles to find the row of a vector, fitted to measurements on Zen 5."""


class Kept(Protocol):
    """Which vectors are stored, those of a section one after the other."""

    def span(self, k: KernelBuilder, section: Expr) -> tuple[Expr, Expr]:
        """The first vector of a section, and how many there are."""
        ...

    def row(self, k: KernelBuilder, vector: Expr) -> Expr:
        """The row of a vector."""
        ...


@dataclass(frozen=True)
class Listed:
    """By lists: `rows` int32 of every vector, and `starts` int32, the first vector of every section and the end of the last."""

    starts: Buffer
    rows: Buffer

    def span(self, k: KernelBuilder, section: Expr) -> tuple[Expr, Expr]:
        first = k.bind(k.load(self.starts, section))
        return first, k.bind(k.load(self.starts, section + 1) - first)

    def row(self, k: KernelBuilder, vector: Expr) -> Expr:
        return k.bind(k.load(self.rows, vector))


@dataclass(frozen=True)
class Spaced:
    """`count` of every `depth` rows, evenly: what programs are made of that measure kernels, whose weights have no values."""

    count: int
    depth: int

    def span(self, k: KernelBuilder, section: Expr) -> tuple[Expr, Expr]:
        return k.bind(section * self.count), self.count

    def row(self, k: KernelBuilder, vector: Expr) -> Expr:
        return k.bind(tirx.op.floordiv(tirx.op.floormod(vector, self.count) * self.depth, self.count))


@dataclass(frozen=True)
class Packed:
    """`values` `[vectors, lanes]`, and the lists of `Listed`."""

    values: Array
    rows: Array
    starts: Array


def pack_kept(sections: Array) -> Packed:
    """The vectors of `[sections, rows, lanes]` that are not zero."""
    stored = sections.any(axis=-1)
    counts = np.concatenate([[0], np.cumsum(stored.sum(axis=1))])
    return Packed(sections[stored], np.nonzero(stored)[1].astype(np.int32), counts.astype(np.int32))


def panel_sections(matrix: Array, lanes: int) -> Array:
    """A matrix `[rows, outputs]` as `[panels, rows, lanes]`, missing outputs zero."""
    padded = np.pad(matrix, [(0, 0), (0, -matrix.shape[1] % lanes)])
    return np.moveaxis(padded.reshape(len(matrix), -1, lanes), 1, 0)


def filter_sections(weights: Array, groups: int, lanes: int) -> Array:
    """`[filters * groups, channels, kh, kw]` as `[groups * blocks of filters * kh * kw, channels, lanes]`, missing filters zero."""
    split = weights.reshape(groups, -1, *weights.shape[1:])
    padded = np.pad(split, [(0, 0), (0, -split.shape[1] % lanes), *[(0, 0)] * 3])
    blocks = padded.reshape(groups, -1, lanes, *weights.shape[1:])
    return np.moveaxis(blocks, [2, 3], [-1, -2]).reshape(-1, weights.shape[1], lanes)


def share_kept(weights: Array, sections_of: Callable[[Array], Array]) -> float:
    """Of the vectors of the sections that weights have, those that are stored; 1 without a look where few weights are zero."""
    if np.count_nonzero(weights) >= FEW_ZEROS * weights.size:
        return 1.0
    return float(sections_of(weights).any(axis=-1).mean())


def kept_rows(depth: int, per_cent: int) -> int:
    """Of as many rows, a share; one at least."""
    return max(math.ceil(depth * per_cent / 100), 1)


def sparse_core(core: Core) -> Core:
    """The same core, which has no use for lanes as scalars: rows that follow one another are not next to each other."""
    return Core(core.lanes, core.registers, core.multiply, Scalars.BROADCAST, core.speed)


def sparse_step_cycles(scalars: int, depth: int, core: Core) -> float:
    """Estimated cycles of one of `depth` steps, a vector of weights times `scalars`, of which several are under way at once."""
    together = max(core.speed.in_flight // scalars, 1)
    cycles = step_cycles(1, together * scalars, max(depth // together, 1), sparse_core(core))
    return max(cycles / together, core.speed.far_load) + WALK / together

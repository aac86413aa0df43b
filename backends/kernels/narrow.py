"""Products of float16 that are added in float16, twice as many lanes at a time, but never many of them before the sums are added to
others of float32.

A sum of n products in float16, whose unit roundoff is u, is off by about u * sqrt(n / 2) of what it amounts to (Higham, Accuracy and Stability
of Numerical Algorithms, chapter 4, for errors that are independent), and so is the total of any number of such sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, broadcast, cast, const
from graphopt.backends.codegen.inline import widening_sum
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.core import Core, NarrowSum, Scalars

LARGEST = 16.0
"""Weights are scaled so that no sum exceeds so many times the largest activation, and sums of activations up to 3900 no float16."""

SCALES = -14, 15
"""Least and largest exponent of a scale, which float16 has to hold."""


def wide_core(core: Core) -> Core:
    """The core as it is to kernels of float16."""
    return replace(core, lanes=2 * core.lanes, scalars=Scalars.LOW_LANES)


def scale_of(weights: np.ndarray[Any, Any], terms: int) -> float:
    """The power of two by which `weights [filters, ...]` are divided: for every filter the largest `terms` of them add up to `LARGEST`
    at most."""
    rows = np.sort(np.abs(weights.reshape(len(weights), -1).astype(np.float64)), 1)
    largest = float(rows[:, -terms:].sum(1).max(initial=0.0))
    least, most = SCALES
    return 2.0 ** min(max(math.ceil(math.log2(largest / LARGEST)), least), most) if largest else 1.0


@dataclass(frozen=True)
class Narrow:
    """The arithmetic of a core for float16; `lanes` are those of float16, weights were divided by `scale`."""

    half: NarrowSum
    lanes: int
    scale: float = 1.0
    by_lane: bool = True

    @property
    def unit(self) -> int:
        """Activations of a step."""
        return 1

    @property
    def sums(self) -> str:
        """Dtype of a sum that is complete."""
        return "float32"

    @property
    def element(self) -> str:
        """Dtype of a weight before it is packed."""
        return "float16"

    @property
    def weights_dtype(self) -> str:
        """Of packed weights."""
        return "float16"

    @property
    def step(self) -> int:
        """Packed weights of one vector of filters and one step."""
        return self.lanes

    def pack(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`[..., vectors * lanes, 1]` as it is."""
        return weights

    def scalar(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The activation at `at`, for all lanes."""
        return [k.bind(broadcast(k.load(buffer, at), self.lanes))]

    def vector(self, k: KernelBuilder, buffer: Buffer, at: Expr, count: int) -> Expr:
        """`count` activations from `at`."""
        return k.bind(k.load_vector(buffer, at, count))

    def operands(self, k: KernelBuilder, scalar: Expr) -> list[Expr]:
        """An activation that came from such a vector, for all lanes."""
        return [scalar]

    def weights(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The weights of a vector of filters, which start at `at`."""
        return [k.bind(k.load_vector(buffer, at, self.lanes))]

    def add(self, k: KernelBuilder, total: Expr, scalar: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        """`total` and the products, in float16."""
        return total + scalar[0] * weights[0]

    def start(self, k: KernelBuilder, vectors: int) -> Local:
        """Sums of float16, all zero."""
        sums = k.local(vectors * self.lanes, "float16")
        for vector in range(vectors):
            zero = broadcast(const(0, "float16"), self.lanes)
            k.assign(sums, vector * self.lanes, zero, self.lanes)
        return sums

    def widen(self, k: KernelBuilder, narrow: Local, sums: Local, vectors: int) -> None:
        """Add sums of float16 to those of float32."""
        for vector in range(vectors):
            at = vector * self.lanes
            part = k.read_vector(narrow, at, self.lanes)
            total = self._widened(k, k.read_vector(sums, at, self.lanes), part)
            k.assign(sums, at, total, self.lanes)

    def _widened(self, k: KernelBuilder, total: Expr, part: Expr) -> Expr:
        wide = f"float32x{self.lanes}"
        if not self.half.widening:
            return total + cast(part, wide) * tirx.Broadcast(const(self.scale, "float32"), self.lanes)
        scale = tirx.Broadcast(const(self.scale, "float16"), self.lanes)
        return k.call(widening_sum(self.half.widening, self.lanes), wide, total, part, scale)


def parts(count: int, most: int) -> list[tuple[int, int, int]]:
    """`count` steps as runs of at most `most`, about equally long: start, length and number of equal ones."""
    if not count:
        return []
    length = -(-count // -(-count // most))
    whole, rest = divmod(count, length)
    return [(0, length, whole), *([(whole * length, rest, 1)] if rest else [])]

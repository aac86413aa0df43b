"""Folding elements into one value, and rows that a kernel keeps at hand between the stages that read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.mathematics import is_nan
from graphopt.backends.codegen.program import Buffer

Element = Callable[[Expr], Expr]

LOCAL_ROW = 4096
"""Elements of the longest row that is kept on the stack of a task."""

ACCUMULATORS = 4
"""Vectors that a long row is folded into side by side, to hide the latency of an addition."""


@dataclass(frozen=True)
class Fold:
    """An associative operation: `initial(dtype)` is neutral for `combine`."""

    initial: Callable[[str], Any]
    combine: Callable[[Expr, Expr], Expr]


def _lowest(dtype: str) -> Any:
    return -math.inf if dtype.startswith("float") else np.iinfo(dtype).min


def _highest(dtype: str) -> Any:
    return math.inf if dtype.startswith("float") else np.iinfo(dtype).max


def _with_nan(pick: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    """`pick` that keeps a NaN met so far; the second operand's own passes through a comparison."""

    def combine(total: Expr, value: Expr) -> Expr:
        if not str(total.ty.dtype).startswith("float"):
            return pick(total, value)
        return tirx.Select(is_nan(total), total, pick(total, value))

    return combine


SUM = Fold(lambda dtype: 0, lambda a, b: a + b)
PRODUCT = Fold(lambda dtype: 1, lambda a, b: a * b)
MAXIMUM = Fold(_lowest, lambda a, b: tirx.op.max(a, b))
MINIMUM = Fold(_highest, lambda a, b: tirx.op.min(a, b))
NAN_MAXIMUM = Fold(_lowest, _with_nan(tirx.op.max))
NAN_MINIMUM = Fold(_highest, _with_nan(tirx.op.min))


def vector_loop(k: KernelBuilder, lanes: int, body: Callable[[Expr], None]) -> None:
    """`body` for every lane of one vector; for a single lane in place."""
    if lanes == 1:
        body(0)
    else:
        with k.loop(lanes, "vector", "lane") as lane:
            body(lane)


def fill(k: KernelBuilder, local: Local, size: int, value: Expr) -> None:
    """Set `size` elements of scratch memory."""
    k.assign(local, 0, value if size == 1 else tirx.Broadcast(value, size), size)


class Accumulator:
    """Vectors of partial results side by side, folded into one value at the end."""

    def __init__(self, k: KernelBuilder, fold: Fold, dtype: str, lanes: int, extent: int) -> None:
        self.k, self.fold, self.dtype, self.lanes = k, fold, dtype, lanes
        self.width = ACCUMULATORS if extent >= 2 * ACCUMULATORS * lanes else 1
        self.initial = const(fold.initial(dtype), dtype)
        self.partial = k.local(self.width * lanes, dtype)
        self.rest = k.local(1, dtype)
        fill(k, self.partial, self.width * lanes, self.initial)
        fill(k, self.rest, 1, self.initial)

    def add(self, extent: int, element: Element) -> None:
        """Fold `element(0) ... element(extent - 1)`; elements next to each other go into lanes."""
        k, step = self.k, self.width * self.lanes
        strides, done = extent // step, extent // step * step
        if strides:
            with k.loop(strides, "serial", "s") as s:
                for w in range(self.width):
                    self._vector(w, element, s * step + w * self.lanes)
        vectors = (extent - done) // self.lanes
        if vectors:
            with k.loop(vectors, "serial", "v") as v:
                self._vector(0, element, done + v * self.lanes)
        done += vectors * self.lanes
        if extent > done:
            with k.loop(extent - done, "serial", "t") as t:
                k.assign(self.rest, 0, self.fold.combine(self.rest[0], element(done + t)))

    def _vector(self, w: int, element: Element, first: Expr) -> None:
        def body(lane: Expr) -> None:
            at = w * self.lanes + lane
            self.k.assign(self.partial, at, self.fold.combine(self.partial[at], element(first + lane)))

        vector_loop(self.k, self.lanes, body)

    def total(self) -> Expr:
        """Everything folded so far, halving the vectors."""
        k, half = self.k, self.width * self.lanes // 2
        while half:
            low, high = (k.bind(k.read_vector(self.partial, at, half)) for at in (0, half))
            if half == 1:
                k.assign(self.partial, 0, self.fold.combine(low, high))
            else:
                vector_loop(k, half, partial(self._halve, half))
            half //= 2
        return k.bind(self.fold.combine(self.partial[0], self.rest[0]))

    def _halve(self, half: int, lane: Expr) -> None:
        self.k.assign(self.partial, lane, self.fold.combine(self.partial[lane], self.partial[lane + half]))


def fold_row(k: KernelBuilder, fold: Fold, extent: int, dtype: str, lanes: int, element: Element) -> Expr:
    """`element(0) ... element(extent - 1)` folded into one value."""
    accumulator = Accumulator(k, fold, dtype, lanes, extent)
    accumulator.add(extent, element)
    return accumulator.total()


class Row:
    """`extent` elements filled up to whole vectors in `memory` from `start`; on the stack without."""

    def __init__(
        self,
        k: KernelBuilder,
        extent: int,
        dtype: str,
        lanes: int,
        memory: Buffer | Local | None,
        start: Expr = 0,
    ) -> None:
        self.k, self.extent, self.dtype, self.lanes = k, extent, dtype, lanes
        self.padded = padded(extent, lanes)
        self.memory = k.local(max(self.padded, 1), dtype) if memory is None else memory
        self.start = 0 if memory is None else start

    def __getitem__(self, position: Expr) -> Expr:
        at = self.start + position
        return self.memory[at] if isinstance(self.memory, Local) else self.k.load(self.memory, at)

    def assign(self, position: Expr, value: Expr) -> None:
        at = self.start + position
        if isinstance(self.memory, Local):
            self.k.assign(self.memory, at, value)
        else:
            self.k.store(self.memory, at, value)

    def load(self, element: Element, vectorise: bool = True) -> None:
        """Read every element once."""
        lanes = self.lanes if vectorise else 1
        map_row(self.k, self.extent, lanes, lambda p: self.assign(p, element(p)))

    def pad(self, value: Expr) -> None:
        """Set the elements beyond the row."""
        if self.padded > self.extent:
            with self.k.loop(self.padded - self.extent, "serial", "pad") as i:
                self.assign(self.extent + i, value)

    def fold(self, fold: Fold, element: Element) -> Expr:
        """`element(position)` folded over the row and its padding."""
        accumulator = Accumulator(self.k, fold, self.dtype, self.lanes, self.padded)
        accumulator.add(self.padded, element)
        return accumulator.total()

    def replace(self, change: Callable[[Expr], Expr]) -> None:
        """Every element, those of the padding too, by `change(element)`."""
        map_row(self.k, self.padded, self.lanes, lambda p: self.assign(p, change(self[p])))

    def each(self, body: Callable[[Expr, Expr], None]) -> None:
        """`body(position, element)` for every element of the row."""
        map_row(self.k, self.extent, self.lanes, lambda p: body(p, self[p]))


def padded(extent: int, lanes: int) -> int:
    """`extent` rounded up to whole vectors."""
    return -(-extent // lanes) * lanes


def map_row(k: KernelBuilder, extent: int, lanes: int, body: Callable[[Expr], None]) -> None:
    """Run `body` for every position of a row, in vectors where whole ones fit."""
    vectors = extent // lanes if lanes > 1 else 0
    if vectors:
        with k.loop(vectors, "serial", "v") as v, k.loop(lanes, "vector", "lane") as lane:
            body(v * lanes + lane)
    if extent > vectors * lanes:
        with k.loop(extent - vectors * lanes, "serial", "rest") as rest:
            body(rest + vectors * lanes)

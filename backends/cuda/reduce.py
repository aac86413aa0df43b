"""Reductions: a team for every result or, where neighbouring results lie next to each other in memory, a thread for a run of them.

Where these would be too few threads, the warps of a team share out what is folded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const, storage_dtype
from graphopt.backends.cuda import places
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.columns import WARPS, Columns
from graphopt.backends.cuda.rows import fold_team
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.cuda.tiles import MULTIPROCESSORS
from graphopt.backends.kernels.reduce import ReduceKernel, accumulator_dtype
from graphopt.backends.kernels.rows import MAXIMUM, Fold
from graphopt.backends.tensor import unravel

NARROWEST = 2

LARGE = 1 << 21
"""Elements from which it pays to fold columns in parts."""

FEW = 65536
"""Threads that a GPU needs to have enough reads under way."""


class DeviceReduce(ReduceKernel):
    """A ReduceKernel without vectors."""

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        if self.x.size == 0:
            self._nothing(k)
            return
        kept = self._kept()
        shape = [self.x.shape[axis] for axis in kept]

        def result(k: DeviceBuilder, place: Sequence[Expr]) -> None:
            index = dict(zip(kept, place, strict=True))
            peak = self._fold(k, MAXIMUM, index, None) if self.reduction.exponentials else None
            total = self._fold(k, self.reduction.fold, index, peak)
            self._store(k, index, self._finish(k, total, peak))

        if self._has_teams and not self._has_columns:
            with k.loop(math.prod(shape), "independent", "result") as number:
                result(k, [i if isinstance(i, int) else k.bind(i) for i in unravel(number, shape)])
            return
        runs = choose_runs(k, shape, np.dtype(storage_dtype(self.x.dtype)).itemsize, result)
        if self._has_columns and math.prod(runs.shape) < FEW:
            self._columns_in_teams(k, kept)
        else:
            runs.store(k, result)

    @property
    def _has_columns(self) -> bool:
        """Whether neighbouring results lie next to each other, and warps can share out what is folded into them."""
        kept = self._kept()
        if self.reduction.exponentials or not kept or self._contiguous_axis() != kept[-1]:
            return False
        return self.count >= WARPS and self.x.shape[kept[-1]] >= WARP

    def _columns_in_teams(self, k: DeviceBuilder, kept: Sequence[int]) -> None:
        *outer, axis = kept
        folded = [self.x.shape[a] for a in self.axes]

        def read(place: Sequence[Expr], row: Expr, column: Expr) -> Expr:
            at = dict(zip(self.axes, (places.named(k, i) for i in unravel(k.bind(row), folded)), strict=True))
            value = self._read(k, {**dict(zip(outer, place, strict=True)), **at, axis: column})
            return self._element(k, value, None)

        def store(k: DeviceBuilder, place: Sequence[Expr], column: Expr, total: Expr) -> None:
            index = {**dict(zip(outer, place, strict=True)), axis: column}
            self._store(k, index, self._finish(k, total, None))

        extents = tuple(self.x.shape[a] for a in outer)
        dtype = accumulator_dtype(self.x.dtype)
        rows, columns, width = math.prod(folded), self.x.shape[axis], self._width(k, kept)
        Columns(extents, rows, columns, width, self.reduction.fold, dtype).emit(k, read, store)

    def _width(self, k: DeviceBuilder, kept: Sequence[int]) -> int:
        """Neighbouring columns that are read with one access, fewer where tiles of them would leave multiprocessors idle."""
        index = {axis: k.variable("place", self.x.shape[axis]) for axis in range(self.x.rank)}
        width = k.widest(self.x.shape[kept[-1]], lambda p: k.bind(self._read(k, {**index, kept[-1]: p})))
        results = math.prod(self.x.shape[a] for a in kept)
        is_small = self.x.size < LARGE
        while width > WARPS or (is_small and width > NARROWEST and results < width * WARP * MULTIPROCESSORS):
            width //= 2
        return width

    @property
    def _has_teams(self) -> bool:
        """Whether it pays to share out the elements of a result."""
        axis = self._contiguous_axis()
        results = self.x.size // max(self.count, 1)
        return self.count >= WARP and (axis is None or axis in self.axes or results < WARP * WARP)

    def _fold(self, k: DeviceBuilder, fold: Fold, index: dict[int, Expr], peak: Expr | None) -> Expr:
        shape = [self.x.shape[axis] for axis in self.axes]
        is_peak = self.reduction.exponentials and peak is None

        def element(position: Expr) -> Expr:
            value = self._read(k, {**index, **dict(zip(self.axes, unravel(position, shape), strict=True))})
            return value if is_peak else self._element(k, value, peak)

        dtype, extent = accumulator_dtype(self.x.dtype), math.prod(shape)
        if self._has_teams:
            return fold_team(k, fold, dtype, extent, element)
        total = k.local(1, dtype)
        k.assign(total, 0, const(fold.initial(dtype), dtype))
        with k.loop(extent, "serial", "position") as position:
            k.assign(total, 0, fold.combine(total[0], element(position)))
        return k.bind(total[0])

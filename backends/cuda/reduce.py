"""Reductions: a team for every result, or a thread where neighbouring results lie next to each other in memory."""

from __future__ import annotations

import math

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.rows import fold_team
from graphopt.backends.kernels.reduce import ReduceKernel, accumulator_dtype
from graphopt.backends.kernels.rows import MAXIMUM, Fold
from graphopt.backends.tensor import unravel


class DeviceReduce(ReduceKernel):
    """A ReduceKernel without vectors."""

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        if self.x.size == 0:
            self._nothing(k)
            return
        kept = self._kept()
        shape = [self.x.shape[axis] for axis in kept]
        with k.loop(math.prod(shape), "independent", "result") as number:
            index = dict(zip(kept, (k.bind(i) for i in unravel(number, shape)), strict=True))
            peak = self._fold(k, MAXIMUM, index, None) if self.reduction.exponentials else None
            total = self._fold(k, self.reduction.fold, index, peak)
            self._store(k, index, self._finish(k, total, peak))

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

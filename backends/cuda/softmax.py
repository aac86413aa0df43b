"""Softmax along an outer axis: a thread reads the elements of a few neighbouring columns once, and keeps them in registers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, storage_dtype
from graphopt.backends.cuda.accesses import LARGEST
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.reduce import accumulator_dtype
from graphopt.backends.kernels.rows import MAXIMUM, SUM
from graphopt.backends.lower import softmax
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.softmax import finisher, power_for
from graphopt.backends.tensor import Storage, Tensor

MOST = 64
"""Elements of a thread."""

LONGEST = 32
"""Elements of a column that a thread has."""


def for_columns(ctx: Lowering, x: Tensor, axis: int) -> Tensor:
    """The tensor as it is where every element is read once, and neighbours of the last axis may lie next to each other."""
    return x if _in_registers(x, axis) and not x.is_blocked else ctx.dense(x)


def store_columns(
    k: KernelBuilder, x: Tensor, axis: int, lanes: int, after: Epilogue, out: Storage, logarithmic: bool
) -> None:
    """Softmax of every column, of neighbours as many as a thread has registers for."""
    assert isinstance(k, DeviceBuilder)
    if not _in_registers(x, axis):
        softmax.store_columns(k, x, axis, lanes, after, out, logarithmic)
        return
    dtype, extent = accumulator_dtype(x.dtype), x.shape[axis]
    power = power_for(k, x.dtype)

    def column(k: DeviceBuilder, place: Sequence[Expr]) -> None:
        places = [[*place[:axis], i, *place[axis:]] for i in range(extent)]
        values = [k.bind(cast(x.read(k, at), dtype)) for at in places]
        peak = reduce(lambda a, b: k.bind(MAXIMUM.combine(a, b)), values)
        powers = [k.bind(power(k, value - peak)) for value in values]
        total = reduce(lambda a, b: k.bind(SUM.combine(a, b)), powers)
        finish = finisher(k, peak, total, logarithmic)
        for at, value in zip(places, values if logarithmic else powers, strict=True):
            after.store(k, out, at, cast(finish(value), x.dtype))

    size = max(np.dtype(storage_dtype(x.dtype)).itemsize, LARGEST * extent // MOST)
    choose_runs(k, [*x.shape[:axis], *x.shape[axis + 1 :]], size, column).store(k, column)


def _in_registers(x: Tensor, axis: int) -> bool:
    return x.shape[axis] <= LONGEST

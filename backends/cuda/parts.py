"""Products whose depth is cut into parts, so that more multiprocessors have some: a second launch adds up the parts in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.runs import choose_runs

Store = Callable[[KernelBuilder, Expr, Expr, Expr, Expr], None]
"""Takes product of the batch, row, column, and the sum."""


def in_parts(
    k: DeviceBuilder,
    extents: Extents,
    parts: int,
    sums: Buffer,
    store: Store,
    emit: Callable[[Store], None],
) -> None:
    """Let `emit` compute all parts, of which part p of product b comes to its store as product `b * parts + p`, and add them up."""
    shape = [parts, extents.batch, extents.rows, extents.columns]

    def keep(k: KernelBuilder, which: Expr, row: Expr, column: Expr, value: Expr) -> None:
        batch, part = tirx.op.floordiv(which, parts), tirx.op.floormod(which, parts)
        k.store(sums, _flat([part, batch, row, column], shape), value)

    emit(keep)

    def add_up(k: KernelBuilder, index: Sequence[Expr]) -> None:
        batch, row, column = index
        total = k.local(1, sums.dtype)
        k.assign(total, 0, k.load(sums, _flat([0, *index], shape)))
        with k.loop(parts - 1, "unroll", "part") as part:
            k.assign(total, 0, total[0] + k.load(sums, _flat([part + 1, *index], shape)))
        store(k, batch, row, column, total[0])

    size = np.dtype(sums.dtype).itemsize
    choose_runs(k, shape[1:], size, add_up).store(k, add_up)


def _flat(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    position: Expr = 0
    for i, extent in zip(index, shape, strict=True):
        position = position * extent + i
    return position

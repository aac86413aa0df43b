"""Softmax and its relatives: each row is read once, and kept at hand until it is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.reduce import accumulator_dtype
from graphopt.backends.kernels.rows import LOCAL_ROW, MAXIMUM, SUM, Row, padded, vector_loop
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Lowered, Operator, attribute
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Storage, Tensor, unravel

PARALLEL_ELEMENTS = 8192
"""Elements below which a softmax stays on one thread."""


def softmax_axes(ctx: Lowering, node: ir.Node, rank: int) -> list[int]:
    """The axes that one row spans: before opset 13 all from `axis` on, since then one."""
    if rank == 0:
        return []
    if ctx.opset(node) < 13:
        return list(range(attribute(node, "axis", 1) % rank if rank > 1 else 0, rank))
    return [attribute(node, "axis", -1) % rank]


def lower_softmax(ctx: Lowering, node: ir.Node) -> None:
    """Softmax or LogSoftmax, in float32 for the half precisions."""
    x = first_input(ctx, node)
    axes = softmax_axes(ctx, node, x.rank)
    logarithmic = node.op_type == "LogSoftmax"
    if x.size == 0:
        ctx.values[node.outputs[0]] = x
        return
    if axes != list(range(x.rank - len(axes), x.rank)) and _lies_along_last_axis(x):
        x = ctx.twin(for_columns)(ctx, x, axes[0])
        after = epilogue(ctx, node)
        out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
        with ctx.kernel("softmax") as k:
            k.twin(store_columns)(k, x, axes[0], ctx.lanes, after, out, logarithmic)
        return
    x = readable(ctx, x)
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    count = math.prod(x.shape[axis] for axis in axes)
    scratch = row_buffer(ctx, x.size // max(count, 1), count, accumulator_dtype(x.dtype))
    with ctx.kernel("softmax") as k:
        _rows(k, x, axes, ctx.lanes, after, out, logarithmic, scratch)


def row_buffer(ctx: Lowering, rows: int, extent: int, dtype: str) -> Buffer | None:
    """Memory for rows that are too long for a task's stack."""
    return None if extent <= LOCAL_ROW else ctx.buffer(rows * padded(extent, ctx.lanes), dtype)


def _lies_along_last_axis(x: Tensor) -> bool:
    return x.rank > 0 and x.shape[-1] > 1


def readable(ctx: Lowering, x: Tensor) -> Tensor:
    """The tensor itself if vectors of it can be computed in place, else in memory."""
    if not x.is_lazy:
        return ctx.in_memory(x) if x.constant is None else x
    return ctx.unconditional(x)


def row_index(rank: int, axes: Sequence[int], outer: Sequence[Expr], inner: Sequence[Expr]) -> list[Expr]:
    """The index of an element from its place among the rows and in its row."""
    index: list[Any] = [0] * rank
    kept = [axis for axis in range(rank) if axis not in axes]
    for axis, i in [*zip(kept, outer, strict=True), *zip(axes, inner, strict=True)]:
        index[axis] = i
    return index


def _rows(
    k: KernelBuilder,
    x: Tensor,
    axes: Sequence[int],
    lanes: int,
    after: Epilogue,
    out: Storage,
    logarithmic: bool,
    scratch: Buffer | None,
) -> None:
    kept = [x.shape[axis] for axis in range(x.rank) if axis not in axes]
    inner = [x.shape[axis] for axis in axes]
    extent, dtype = math.prod(inner), accumulator_dtype(x.dtype)
    power = power_for(k, x.dtype)
    with k.loop(math.prod(kept), loop_kind(x.size, PARALLEL_ELEMENTS), "row") as number:
        outer = [k.bind(i) for i in unravel(number, kept)]
        row = k.twin(Row)(k, extent, dtype, lanes, scratch, number * padded(extent, lanes))

        def index(position: Expr) -> list[Expr]:
            return row_index(x.rank, axes, outer, unravel(position, inner))

        row.load(lambda p: cast(x.read(k, index(p)), dtype))
        row.pad(const(-math.inf, dtype))
        peak = row.fold(MAXIMUM, lambda p: row[p])

        def exponential(value: Expr) -> Expr:
            return power(k, value - peak)

        if not logarithmic:
            row.replace(exponential)
        total = row.fold(SUM, (lambda p: exponential(row[p])) if logarithmic else (lambda p: row[p]))
        finish = finisher(k, peak, total, logarithmic)
        row.each(lambda p, value: after.store(k, out, index(p), cast(finish(value), x.dtype)))


def power_for(k: KernelBuilder, dtype: str) -> mathematics.Function:
    """What computes the exponentials of results of a dtype."""
    return k.twin(mathematics.coarse_exp) if dtype in mathematics.HALF_PRECISION else mathematics.exp


def finisher(k: KernelBuilder, peak: Expr, total: Expr, logarithmic: bool) -> Callable[[Expr], Expr]:
    """What remains to be done to an exponential, or for the logarithm to an element."""
    if logarithmic:
        shift = k.bind(peak + mathematics.log(k, total))
        return lambda value: value - shift
    scale = k.bind(const(1.0, str(total.ty.dtype)) / total)
    return lambda value: value * scale


def for_columns(ctx: Lowering, x: Tensor, axis: int) -> Tensor:
    """The tensor as `store_columns` reads it."""
    return ctx.dense(x)


def store_columns(
    k: KernelBuilder, x: Tensor, axis: int, lanes: int, after: Epilogue, out: Storage, logarithmic: bool
) -> None:
    """Softmax along an outer axis: every lane is a row of its own, and exponentials are computed twice."""
    last, start = x.shape[-1], 0
    for width in (lanes, 1):
        tiles = (last - start) // width
        if tiles:
            _column_section(k, x, axis, start, tiles, width, after, out, logarithmic)
        start += tiles * width


def _column_section(
    k: KernelBuilder,
    x: Tensor,
    axis: int,
    start: int,
    tiles: int,
    width: int,
    after: Epilogue,
    out: Storage,
    logarithmic: bool,
) -> None:
    dtype = accumulator_dtype(x.dtype)
    kept = [x.shape[a] for a in range(x.rank - 1) if a != axis]
    kind = loop_kind(x.size, PARALLEL_ELEMENTS)
    with k.loop(math.prod(kept) * tiles, kind, "unit") as unit:
        *outer, tile = (k.bind(i) for i in unravel(unit, [*kept, tiles]))

        def index(i: Expr, lane: Expr) -> list[Expr]:
            return row_index(x.rank, [axis, x.rank - 1], outer, [i, start + tile * width + lane])

        def element(i: Expr, lane: Expr) -> Expr:
            return cast(x.read(k, index(i, lane)), dtype)

        peak, total = k.local(width, dtype), k.local(width, dtype)
        vector_loop(k, width, lambda lane: k.assign(peak, lane, const(-math.inf, dtype)))
        vector_loop(k, width, lambda lane: k.assign(total, lane, const(0.0, dtype)))
        with k.loop(x.shape[axis], "serial", "i") as i:
            vector_loop(
                k, width, lambda lane: k.assign(peak, lane, tirx.op.max(peak[lane], element(i, lane)))
            )

        def accumulate(i: Expr, lane: Expr) -> None:
            k.assign(total, lane, total[lane] + mathematics.exp(k, element(i, lane) - peak[lane]))

        with k.loop(x.shape[axis], "serial", "i") as i:
            vector_loop(k, width, lambda lane: accumulate(i, lane))

        def store(i: Expr, lane: Expr) -> None:
            shifted = element(i, lane) - peak[lane]
            if logarithmic:
                result = shifted - mathematics.log(k, total[lane])
            else:
                result = mathematics.exp(k, shifted) / total[lane]
            after.store(k, out, index(i, lane), cast(result, x.dtype))

        with k.loop(x.shape[axis], "serial", "i") as i:
            vector_loop(k, width, lambda lane: store(i, lane))


def _hardmax(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """1 at the first largest element of every row, 0 elsewhere."""
    axes = softmax_axes(ctx, node, first_input(ctx, node).rank)

    def build(made: Composite) -> Sequence[ir.Value | None]:
        x = made.input(0)
        assert x is not None
        shape, dtype = made.shape(x), made.dtype(x)
        rows = made.reshape(x, [*shape[: axes[0]], math.prod(shape[a] for a in axes), *shape[axes[-1] + 1 :]])
        best = made("ArgMax", rows, axis=axes[0], keepdims=1)
        extent = math.prod(shape[a] for a in axes)
        places = np.arange(extent).reshape(-1, *[1] * (len(shape) - axes[-1] - 1))
        hot = made("Cast", made("Equal", best, places), to=ir.DataType.from_numpy(np.dtype(dtype)).value)
        return [made.reshape(hot, shape)]

    return composite(build).lower(ctx, node)


OPERATORS: dict[str, Operator] = {
    "Hardmax": Lowered(_hardmax),
    "LogSoftmax": Anchor(lower_softmax),
    "Softmax": Anchor(lower_softmax),
}

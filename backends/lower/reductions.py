"""Reductions over axes, softmax, and the normalisations that reduce."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.kernels.rows import MAXIMUM, MINIMUM, PRODUCT, SUM, Fold, fold_row, map_row
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Operator, attribute, constant_input, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor, unravel

PARALLEL_ELEMENTS = 32768
"""Elements read below which a reduction stays on one thread."""


@dataclass(frozen=True)
class Reduction:
    """`fold` over `before(x)`, then `after(total, count)`."""

    fold: Fold
    before: Callable[[KernelBuilder, Expr], Expr] = lambda k, x: x
    after: Callable[[KernelBuilder, Expr, int], Expr] = lambda k, total, count: total


def _mean(k: KernelBuilder, total: Expr, count: int) -> Expr:
    dtype = str(total.ty.dtype)
    if dtype.startswith("float"):
        return total * const(1.0 / count, dtype)
    return tirx.op.truncdiv(total, const(count, dtype))


REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": Reduction(SUM),
    "ReduceMean": Reduction(SUM, after=_mean),
    "ReduceMax": Reduction(MAXIMUM),
    "ReduceMin": Reduction(MINIMUM),
    "ReduceProd": Reduction(PRODUCT),
    "ReduceL1": Reduction(SUM, lambda k, x: tirx.op.abs(x)),
    "ReduceL2": Reduction(SUM, lambda k, x: x * x, lambda k, total, count: tirx.op.sqrt(total)),
    "ReduceSumSquare": Reduction(SUM, lambda k, x: x * x),
    "ReduceLogSum": Reduction(SUM, after=lambda k, total, count: tirx.op.log(total)),
}


def reduced_axes(ctx: Lowering, node: ir.Node, rank: int) -> list[int]:
    """The axes a Reduce operator folds, from its attribute or its second input; all of them by default."""
    axes = attribute(node, "axes")
    if axes is None:
        axes = constant_input(ctx, node, 1, "axes")
    if axes is None or len(axes) == 0:
        return [] if axes is not None and attribute(node, "noop_with_empty_axes", 0) else _all_or_none(node, rank)
    return sorted({int(axis) % rank for axis in axes})


def _all_or_none(node: ir.Node, rank: int) -> list[int]:
    return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))


def lower_reduce(ctx: Lowering, node: ir.Node) -> None:
    """Any Reduce operator of the table above."""
    x = first_input(ctx, node)
    _reduce(ctx, node, x, reduced_axes(ctx, node, x.rank), REDUCTIONS[node.op_type])


def lower_global_average_pool(ctx: Lowering, node: ir.Node) -> None:
    """The mean over all spatial axes."""
    x = first_input(ctx, node)
    _reduce(ctx, node, x, list(range(2, x.rank)), REDUCTIONS["ReduceMean"])


def lower_global_max_pool(ctx: Lowering, node: ir.Node) -> None:
    """The maximum over all spatial axes."""
    x = first_input(ctx, node)
    _reduce(ctx, node, x, list(range(2, x.rank)), REDUCTIONS["ReduceMax"])


def _reduce(ctx: Lowering, node: ir.Node, x: Tensor, axes: Sequence[int], reduction: Reduction) -> None:
    x = ctx.in_memory(x) if x.constant is None else x
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    kept = [axis for axis in range(x.rank) if axis not in axes]
    kept_shape = [x.shape[axis] for axis in kept]
    folded_shape = [x.shape[axis] for axis in axes]
    count = math.prod(folded_shape)

    def source(outer: Sequence[Expr], inner: Sequence[Expr]) -> list[Expr]:
        index: list[Any] = [0] * x.rank
        for axis, i in [*zip(kept, outer, strict=True), *zip(axes, inner, strict=True)]:
            index[axis] = i
        return index

    with ctx.kernel("reduce") as k:
        kind = "parallel" if x.size >= PARALLEL_ELEMENTS else "serial"
        with k.loop(math.prod(kept_shape), kind, "row") as row:
            outer = [k.bind(i) for i in unravel(row, kept_shape)]

            def element(position: Expr) -> Expr:
                return reduction.before(k, x.read(k, source(outer, unravel(position, folded_shape))))

            lanes = ctx.lanes if x.size else 1
            total = fold_row(k, reduction.fold, count, x.dtype, lanes, element)
            index = unravel(row, after.shape)
            after.store(k, out, index, reduction.after(k, total, count))


def lower_softmax(ctx: Lowering, node: ir.Node) -> None:
    """Softmax; before opset 13 over all axes from `axis` on."""
    x = ctx.in_memory(first_input(ctx, node))
    old = ctx.opset(node) < 13
    axis = attribute(node, "axis", 1 if old else -1) % max(x.rank, 1)
    folded = list(range(axis, x.rank)) if old else [axis]
    kept = [a for a in range(x.rank) if a not in folded]
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    scratch = ctx.new(x.shape, x.dtype)
    memory = storage_of(scratch)
    kept_shape, folded_shape = [x.shape[a] for a in kept], [x.shape[a] for a in folded]
    count = math.prod(folded_shape)
    with ctx.kernel("softmax") as k:
        kind = "parallel" if x.size >= PARALLEL_ELEMENTS // 4 else "serial"
        with k.loop(math.prod(kept_shape), kind, "row") as row:
            outer = [k.bind(i) for i in unravel(row, kept_shape)]

            def index(position: Expr) -> list[Expr]:
                full: list[Any] = [0] * x.rank
                for a, i in [*zip(kept, outer, strict=True), *zip(folded, unravel(position, folded_shape), strict=True)]:
                    full[a] = i
                return full

            top = fold_row(k, MAXIMUM, count, x.dtype, ctx.lanes, lambda p: x.reader(k, index(p)))

            def exponential(position: Expr) -> None:
                at = index(position)
                value = mathematics.exp(k, x.reader(k, at) - top)
                k.store(memory.buffer, memory.layout.position(at), value)

            map_row(k, count, ctx.lanes, exponential)
            total = fold_row(k, SUM, count, x.dtype, ctx.lanes, lambda p: scratch.reader(k, index(p)))
            scale = k.bind(const(1.0, x.dtype) / total)
            map_row(
                k, count, ctx.lanes, lambda p: after.store(k, out, index(p), scratch.reader(k, index(p)) * scale)
            )


def lower_layer_normalization(ctx: Lowering, node: ir.Node) -> None:
    """LayerNormalization over the axes from `axis` on, with the statistics in the input's own type."""
    x = ctx.in_memory(first_input(ctx, node))
    scale = ctx.tensor(node.inputs[1])  # type: ignore[arg-type]
    bias = ctx.tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    _normalize_rows(ctx, node, x, scale, bias, centred=True)


def lower_rms_normalization(ctx: Lowering, node: ir.Node) -> None:
    """RMSNormalization over the axes from `axis` on."""
    x = ctx.in_memory(first_input(ctx, node))
    _normalize_rows(ctx, node, x, ctx.tensor(node.inputs[1]), None, centred=False)  # type: ignore[arg-type]


def _normalize_rows(
    ctx: Lowering, node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor | None, centred: bool
) -> None:
    axis = attribute(node, "axis", -1) % x.rank
    epsilon = const(attribute(node, "epsilon", 1e-5), x.dtype)
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    rows, row_shape = x.shape[:axis], x.shape[axis:]
    count = math.prod(row_shape)
    zero = const(0.0, x.dtype)
    inverse = const(1.0 / count, x.dtype)

    def parameter(k: KernelBuilder, tensor: Tensor, inner: Sequence[Expr]) -> Expr:
        index = [0] * (tensor.rank - len(inner)) if tensor.rank > len(inner) else []
        tail = [0 if d == 1 else i for d, i in zip(tensor.shape[len(index) :], inner[-tensor.rank :], strict=True)]
        return tensor.read(k, [*index, *tail])

    with ctx.kernel("normalize") as k:
        kind = "parallel" if x.size >= PARALLEL_ELEMENTS else "serial"
        with k.loop(math.prod(rows), kind, "row") as row:
            outer = [k.bind(i) for i in split_index(row, rows)]

            def value(p: Expr) -> Expr:
                return x.reader(k, [*outer, *unravel(p, row_shape)])

            mean = zero
            if centred:
                mean = k.bind(fold_row(k, SUM, count, x.dtype, ctx.lanes, value) * inverse)
            squares = fold_row(k, SUM, count, x.dtype, ctx.lanes, lambda p: (value(p) - mean) * (value(p) - mean))
            factor = k.bind(const(1.0, x.dtype) / tirx.op.sqrt(squares * inverse + epsilon))

            def store(p: Expr) -> None:
                inner = unravel(p, row_shape)
                result = (value(p) - mean) * factor * parameter(k, scale, inner)
                result = result if bias is None else result + parameter(k, bias, inner)
                after.store(k, out, [*outer, *inner], result)

            map_row(k, count, ctx.lanes, store)


OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(REDUCTIONS, Anchor(lower_reduce)),
    "GlobalAveragePool": Anchor(lower_global_average_pool),
    "GlobalMaxPool": Anchor(lower_global_max_pool),
    "Softmax": Anchor(lower_softmax),
    "LayerNormalization": Anchor(lower_layer_normalization),
    "RMSNormalization": Anchor(lower_rms_normalization),
}

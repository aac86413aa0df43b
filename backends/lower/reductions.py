"""The Reduce operators and the global pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, const, dtype_of
from graphopt.backends.kernels.reduce import ReduceKernel, Reduction, collapse
from graphopt.backends.kernels.rows import MAXIMUM, NAN_MAXIMUM, NAN_MINIMUM, PRODUCT, SUM
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Operator, attribute, constant_input
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor, stored


def _mean(k: KernelBuilder, total: Expr, count: int) -> Expr:
    dtype = dtype_of(total)
    if dtype.startswith("float"):
        return total * const(1.0 / count if count else math.nan, dtype)
    return tirx.op.truncdiv(total, const(max(count, 1), dtype))


def _root(k: KernelBuilder, total: Expr, count: int) -> Expr:
    dtype = dtype_of(total)
    if dtype.startswith("float"):
        return tirx.op.sqrt(total)
    return tirx.Cast(dtype, tirx.op.sqrt(tirx.Cast("float64", total)))


def _logarithm(k: KernelBuilder, total: Expr, count: int) -> Expr:
    dtype = dtype_of(total)
    if dtype.startswith("float"):
        return mathematics.log(k, total)
    return tirx.Cast(dtype, tirx.op.log(tirx.Cast("float64", total)))


def _absolute(x: Expr) -> Expr:
    return x if dtype_of(x).startswith("uint") else tirx.op.abs(x)


REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": Reduction(SUM, _absolute),
    "ReduceL2": Reduction(SUM, lambda x: x * x, _root),
    "ReduceLogSum": Reduction(SUM, after=_logarithm),
    "ReduceLogSumExp": Reduction(SUM, after=_logarithm, exponentials=True),
    "ReduceMax": Reduction(NAN_MAXIMUM),
    "ReduceMean": Reduction(SUM, after=_mean),
    "ReduceMin": Reduction(NAN_MINIMUM),
    "ReduceProd": Reduction(PRODUCT),
    "ReduceSum": Reduction(SUM),
    "ReduceSumSquare": Reduction(SUM, lambda x: x * x),
}


def reduced_axes(ctx: Lowering, node: ir.Node, rank: int) -> list[int]:
    """The axes a Reduce operator folds, from its attribute or its second input; all of them by default."""
    axes = attribute(node, "axes")
    if axes is None:
        axes = constant_input(ctx, node, 1, "axes")
    if axes is not None and len(axes):
        return sorted({int(axis) % rank for axis in axes})
    return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))


def lower_reduce(ctx: Lowering, node: ir.Node) -> None:
    """Any Reduce operator of the table above."""
    x = first_input(ctx, node)
    axes = reduced_axes(ctx, node, x.rank)
    reduction = REDUCTIONS[node.op_type]
    if reduction.exponentials and not x.dtype.startswith(("float", "bfloat")):
        reduction = replace(reduction, exponentials=False, before=_integer_exponential)
    _reduce(ctx, node, x, axes, reduction, bool(attribute(node, "keepdims", 1)))


def _integer_exponential(x: Expr) -> Expr:
    return tirx.Cast(dtype_of(x), tirx.op.exp(tirx.Cast("float64", x)))


def lower_global_average_pool(ctx: Lowering, node: ir.Node) -> None:
    """The mean over all spatial axes."""
    x = first_input(ctx, node)
    _reduce(ctx, node, x, range(2, x.rank), REDUCTIONS["ReduceMean"], keepdims=True)


def lower_global_max_pool(ctx: Lowering, node: ir.Node) -> None:
    """The maximum over all spatial axes."""
    x = first_input(ctx, node)
    _reduce(ctx, node, x, range(2, x.rank), Reduction(MAXIMUM), keepdims=True)


def _reduce(
    ctx: Lowering, node: ir.Node, x: Tensor, axes: Sequence[int], reduction: Reduction, keepdims: bool
) -> None:
    count = math.prod(x.shape[axis] for axis in axes)
    x = _in_memory(ctx, x)
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    kept = [axis for axis in range(x.rank) if axis not in axes]
    places: list[int | None] = list(range(len(kept)))
    if keepdims:
        places = [kept.index(axis) if axis in kept else None for axis in range(x.rank)]
    view, folded = collapse(x, axes)
    with ctx.kernel("reduce") as k:
        k.twin(ReduceKernel)(view, folded, count, reduction, ctx.lanes, after, out, places).emit(k)


def _in_memory(ctx: Lowering, x: Tensor) -> Tensor:
    if x.size == 0:
        return ctx.new(x.shape, x.dtype)
    return ctx.in_memory(x) if x.constant is None else stored(ctx.constant_buffer(x.constant), x.shape)


OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(REDUCTIONS, Anchor(lower_reduce)),
    "GlobalAveragePool": Anchor(lower_global_average_pool),
    "GlobalMaxPool": Anchor(lower_global_max_pool),
}

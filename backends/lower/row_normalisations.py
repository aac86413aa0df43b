"""LayerNormalization and RMSNormalization: each row is read once, and kept at hand until it is stored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.reduce import PARALLEL_ELEMENTS, accumulator_dtype
from graphopt.backends.kernels.rows import SUM, Row, padded
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Operator, attribute
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.softmax import readable, row_buffer
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor, broadcast_index, unravel


def lower_normalization(ctx: Lowering, node: ir.Node) -> None:
    """Either operator over the axes from `axis` on; half precision is computed in float32, as `stash_type` 1 says."""
    centred = node.op_type == "LayerNormalization"
    x = readable(ctx, first_input(ctx, node))
    scale, bias = (_optional(ctx, node, position) for position in (1, 2))
    if x.size == 0:
        ctx.values[node.outputs[0]] = x
        return
    axis = attribute(node, "axis", -1) % x.rank
    rows, inner = x.shape[:axis], x.shape[axis:]
    extent, dtype = math.prod(inner), accumulator_dtype(x.dtype)
    statistics = [_statistic(ctx, value, rows, x.rank, dtype) for value in node.outputs[1:]]
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    scratch = row_buffer(ctx, math.prod(rows), extent, dtype)
    epsilon, inverse = const(attribute(node, "epsilon", 1e-5), dtype), const(1.0 / max(extent, 1), dtype)
    with ctx.kernel("normalize") as k:
        kind = loop_kind(x.size, PARALLEL_ELEMENTS)
        with k.loop(math.prod(rows), kind, "row") as number:
            outer = [k.bind(i) for i in unravel(number, rows)]
            row = k.twin(Row)(k, extent, dtype, ctx.lanes, scratch, number * padded(extent, ctx.lanes))

            def index(p: Expr) -> list[Expr]:
                return [*outer, *unravel(p, inner)]

            row.load(lambda p: cast(x.read(k, index(p)), dtype))
            mean = _centre(k, row, inverse) if centred else const(0.0, dtype)
            row.pad(const(0.0, dtype))
            squares = row.fold(SUM, lambda p: row[p] * row[p])
            factor = k.bind(const(1.0, dtype) / tirx.op.sqrt(squares * inverse + epsilon))
            for tensor, value in zip(statistics, (mean, factor), strict=False):
                if tensor is not None:
                    k.store(storage_of(tensor).buffer, number, cast(value, tensor.dtype))

            def store(p: Expr, value: Expr) -> None:
                at = index(p)
                result = value * factor
                for parameter, combine in ((scale, _times), (bias, _plus)):
                    if parameter is not None:
                        element = parameter.read(k, broadcast_index(at, parameter.shape))
                        result = combine(result, cast(element, dtype))
                after.store(k, out, at, cast(result, after.dtype))

            row.each(store)


def _centre(k: KernelBuilder, row: Row, inverse: Expr) -> Expr:
    """Take the mean off every element of the row, and give it."""
    row.pad(const(0.0, row.dtype))
    mean = k.bind(row.fold(SUM, lambda p: row[p]) * inverse)
    row.replace(lambda value: value - mean)
    return mean


def _times(a: Expr, b: Expr) -> Expr:
    return a * b


def _plus(a: Expr, b: Expr) -> Expr:
    return a + b


def _optional(ctx: Lowering, node: ir.Node, position: int) -> Tensor | None:
    value = node.inputs[position] if position < len(node.inputs) else None
    return None if value is None else ctx.cheap(ctx.tensor(value))


def _statistic(ctx: Lowering, value: ir.Value, rows: Sequence[int], rank: int, dtype: str) -> Tensor | None:
    """Memory for the mean or the inverse deviation of every row, if anything reads it."""
    if not value.uses() and not value.is_graph_output():
        return None
    return ctx.result(value, [*rows, *[1] * (rank - len(rows))], dtype)


OPERATORS: dict[str, Operator] = dict.fromkeys(
    ("LayerNormalization", "RMSNormalization"), Anchor(lower_normalization)
)

"""Attention in one kernel where its shapes and inputs suit it: of halves on tensor cores, of float32 on multiply-add units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, storage_dtype
from graphopt.backends.codegen.program import Kernel
from graphopt.backends.cuda.attention_kernel import AttentionKernel
from graphopt.backends.cuda.attention_scores import Scores
from graphopt.backends.cuda.attention_tiles import DEPTH, choose_attention_tile
from graphopt.backends.cuda.float_attention import ACROSS, FloatAttention, choose_rows
from graphopt.backends.cuda.tensor_attention import LARGEST, TensorAttention
from graphopt.backends.cuda.tensor_elements import CHUNK, HALVES
from graphopt.backends.cuda.tensor_operands import has_chunks
from graphopt.backends.layout import Strided
from graphopt.backends.lower import attention
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Operator, attribute, dtype_of_value, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Index, Tensor, broadcast_index, stored

OPERANDS, MASK = 3, 3

HALF_TYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

PLAIN = {
    "softcap": 0.0,
    "left_window_size": -1,
    "right_window_size": -1,
    "qk_matmul_output_mode": 0,
}
"""Attributes with the values that leave scores as they are."""

IN_ROWS = (0, 2, 1, 3)
"""The order of axes in which all heads of a query are neighbours."""


def choose_attention(node: ir.Node) -> Operator:
    """By what is known of the node alone."""
    operands = list(node.inputs[:OPERANDS])
    if suits_one_kernel(node, [half_of(value) for value in operands], HALF_TYPES, DEPTH):
        return Anchor(_lower)
    if suits_one_kernel(node, operands, (ir.DataType.FLOAT,), ACROSS):
        return Anchor(_lower_float)
    return attention.OPERATORS["Attention"]


def half_of(value: ir.Value | None) -> ir.Value | None:
    """The value in half precision that a value is, or was widened from; None for others."""
    if value is None or value.dtype in HALF_TYPES:
        return value
    cast = value.producer()
    source = cast.inputs[0] if cast is not None and cast.op_type == "Cast" else None
    return source if source is not None and source.dtype in HALF_TYPES else None


def suits_one_kernel(
    node: ir.Node, operands: Sequence[ir.Value | None], dtypes: Sequence[ir.DataType], multiple: int
) -> bool:
    """Whether operands of one of those types have four axes and rows of such multiples, and nothing but masks are added to the scores."""
    found = [value for value in operands if value is not None and value.const_value is None]
    if len(found) < OPERANDS or len({value.dtype for value in found}) > 1 or found[0].dtype not in dtypes:
        return False
    if any(value is not None for value in node.inputs[MASK + 1 :]) or len(node.outputs) > 1:
        return False
    if any(attribute(node, name, plain) != plain for name, plain in PLAIN.items()):
        return False
    mask = node.inputs[MASK] if len(node.inputs) > MASK else None
    shapes = [shape_of(value) for value in found]
    if any(len(shape) != 4 or 0 in shape for shape in shapes) or not _share_heads(*shapes):
        return False
    if mask is not None and (
        not dtype_of_value(mask).startswith("float") or shape_of(mask)[-1] not in (1, shapes[1][2])
    ):
        return False
    return all(shape[-1] % multiple == 0 and shape[-1] <= LARGEST for shape in shapes)


def _share_heads(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> bool:
    """Whether as many heads of queries belong to each head of keys and values."""
    return query[0] == key[0] and key[:2] == value[:2] and query[1] % key[1] == 0


def _lower(ctx: Lowering, node: ir.Node) -> None:
    query, key, value = (_in_chunks(ctx, half_of(operand)) for operand in node.inputs[:OPERANDS])
    element = HALVES[query.dtype]
    tile = choose_attention_tile(ctx.core, _extents(query, key), query.shape[3], value.shape[3])
    _emit(ctx, node, (query, key, value), partial(TensorAttention, element=element, tile=tile))


def _lower_float(ctx: Lowering, node: ir.Node) -> None:
    query, key, value = (_in_chunks(ctx, operand) for operand in node.inputs[:OPERANDS])
    rows = choose_rows(_extents(query, key), query.shape[3], value.shape[3])
    _emit(ctx, node, (query, key, value), partial(FloatAttention, rows=rows))


def _extents(query: Tensor, key: Tensor) -> tuple[int, int, int, int]:
    batch, heads, queries, _ = query.shape
    return batch, heads, queries, key.shape[2]


def _emit(
    ctx: Lowering,
    node: ir.Node,
    operands: Sequence[Tensor],
    make: Callable[..., AttentionKernel],
) -> None:
    """The kernel of an attention, and of the elementwise operators that follow it."""
    query, key, value = operands
    mask = node.inputs[MASK] if len(node.inputs) > MASK else None
    added = None if mask is None else ctx.in_memory(ctx.tensor(mask))
    after = epilogue(ctx, node)
    out = storage_of(_result(ctx, after.value, after.shape, after.result.dtype))

    def bias(k: KernelBuilder, index: Index) -> Expr:
        assert added is not None
        return cast(added.reader(k, broadcast_index(index, added.shape)), "float32")

    def store(k: KernelBuilder, index: Index, result: Expr) -> None:
        after.store(k, out, index, cast(result, after.dtype))

    size = query.shape[3]
    scale = attribute(node, "scale", 0.0) or 1 / math.sqrt(size)
    kernel = make(
        *(storage_of(operand) for operand in operands),
        Scores(
            _extents(query, key),
            scale,
            None if added is None else bias,
            bool(attribute(node, "is_causal", 0)),
        ),
        size,
        value.shape[3],
        query.shape[1] // key.shape[1],
        store,
    )
    with ctx.kernel("attention") as k:
        kernel.emit(k)
    step = ctx.steps[-1]
    assert isinstance(step, Kernel)
    step.macs = kernel.macs


def _in_chunks(ctx: Lowering, value: ir.Value | None) -> Tensor:
    """An operand whose rows can be copied by 16 bytes."""
    assert value is not None
    tensor = ctx.strided(ctx.tensor(value))
    chunk = CHUNK // np.dtype(storage_dtype(tensor.dtype)).itemsize
    return tensor if has_chunks(tensor, -1, chunk) else ctx.store(tensor)


def _result(ctx: Lowering, value: ir.Value, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Memory for a value, in rows of all heads where that is how it is read."""
    readers = [user for user, _ in value.uses()]
    turned = len(readers) == 1 and readers[0].op_type == "Transpose" and not value.is_graph_output()
    if not turned or tuple(attribute(readers[0], "perm", ())) != IN_ROWS:
        return ctx.result(value, shape, dtype)
    batch, heads, queries, size = shape
    strides = (queries * heads * size, size, heads * size, 1)
    tensor = stored(ctx.buffer(math.prod(shape), dtype), (batch, heads, queries, size), Strided(strides))
    ctx.values[value] = tensor
    return tensor

"""Operators on float32 whose operands were rounded: what they multiply is shorter, their sums stay float32.

The model says so: Cast to float16 or bfloat16 and back stands before an operand, or `RoundToTF32`, and a weight is a float32 that the
type holds. What kernels store are the halves, which become float32 where they are read, or the rounded float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.cuda.attention import HALF_TYPES, choose_attention, half_of
from graphopt.backends.cuda.instructions import ROUND_BFLOAT16, ROUND_TF32
from graphopt.backends.cuda.tensor_elements import TF32, widened
from graphopt.backends.lower import casts
from graphopt.backends.lower.casts import convert
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.convolution import lower_conv
from graphopt.backends.lower.matmul import lower_gemm, lower_matmul
from graphopt.backends.lower.operator import (
    BITS,
    Anchor,
    Lowered,
    Operator,
    Pointwise,
    Varying,
    dtype_of_value,
    is_bfloat16,
)
from graphopt.backends.tensor import Tensor, lazy
from graphopt.model.movers import moved_inputs, moves_elements

Array = np.ndarray[Any, Any]

OPERANDS = 2

ROUND = "RoundToTF32"

DROPPED = np.uint32((1 << 13) - 1)
"""The bits of a float32 that tf32 has not."""


def _choose_cast(node: ir.Node) -> Operator:
    """Halves become float32 where they are read, so that they are what kernels store."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    widens = source.dtype in HALF_TYPES and value.dtype == ir.DataType.FLOAT
    if widens and not value.is_graph_output():
        return Lowered(_widen)
    if is_bfloat16(value) and not is_bfloat16(source):
        return Pointwise(_round_to_bfloat16)
    chosen = casts.OPERATORS["Cast"]
    assert isinstance(chosen, Varying)
    return chosen.choose(node)


def _widen(ctx: Lowering, node: ir.Node) -> list[Tensor]:
    """What several kernels read is rounded once."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if len(value.uses()) > 1:
        ctx.values[source] = ctx.in_memory(ctx.tensor(source))
    x, dtype = ctx.tensor(source), dtype_of_value(value)

    def read(k: KernelBuilder, index: Sequence[Expr]) -> Expr:
        half = x.read(k, index)
        return widened(k.bind(half), dtype) if x.dtype == BITS else convert(half, dtype)

    return [lazy(x.shape, dtype, read, x.cost, x.block)]


def _round_to_bfloat16(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return k.call(ROUND_BFLOAT16, BITS, convert(k.bind(arguments[0]), "float32"))


def _round_to_tf32(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return k.call(ROUND_TF32, "float32", k.bind(arguments[0]))


def _is_tf32(value: ir.Value) -> bool:
    """Whether all elements of a value were rounded to tf32."""
    producer = value.producer()
    if producer is None or producer.op_type == ROUND:
        return producer is not None
    if not moves_elements(producer):
        return False
    sources = [producer.inputs[i] for i in moved_inputs(producer)]
    return all(source is not None and _is_tf32(source) for source in sources)


def _rounded_to(value: ir.Value) -> str:
    """What a float32 value computed at run time was rounded to, as the dtype in memory; empty if it was not."""
    if value.dtype != ir.DataType.FLOAT:
        return ""
    half = half_of(value)
    if half is not None:
        return dtype_of_value(half)
    return TF32.name if _is_tf32(value) else ""


def _narrowed(array: Array, dtype: str) -> Array | None:
    """float32 weights in such a type, None where it does not hold them."""
    if array.dtype != np.float32:
        return None
    if dtype == TF32.name:
        return None if (array.view(np.uint32) & DROPPED).any() else array
    half = np.dtype(ml_dtypes.bfloat16 if dtype == BITS else dtype)
    with np.errstate(over="ignore"):
        rounded = array.astype(half)
    return rounded.view(dtype) if np.array_equal(rounded.astype(np.float32), array) else None


def _narrow(ctx: Lowering, value: ir.Value, dtype: str) -> Tensor | None:
    """An operand of float32 as what it was rounded to; None where it was not."""
    if value.const_value is None:
        half = value if dtype == TF32.name else half_of(value)
        return None if half is None else ctx.tensor(half)
    narrowed = _narrowed(value.const_value.numpy(), dtype)
    return None if narrowed is None else ctx.constant(narrowed)


@contextmanager
def _as_rounded(ctx: Lowering, node: ir.Node) -> Iterator[None]:
    """While the body runs, the operands of a node are what they were rounded to, if all were to the same type."""
    values = dict.fromkeys(value for value in node.inputs[:OPERANDS] if value is not None)
    types = {_rounded_to(value) for value in values if value.const_value is None}
    dtype = types.pop() if len(types) == 1 else ""
    narrow = {value: _narrow(ctx, value, dtype) for value in values if dtype}
    operands = {value: tensor for value, tensor in narrow.items() if tensor is not None}
    if not operands or len(operands) < len(values):
        yield
        return
    ctx.rounded = operands
    yield
    ctx.rounded = {}


def _of_rounded(lower: Callable[[Lowering, ir.Node], None]) -> Anchor:
    def lowered(ctx: Lowering, node: ir.Node) -> None:
        with _as_rounded(ctx, node):
            lower(ctx, node)

    return Anchor(lowered)


OPERATORS: dict[str, Operator | Varying] = {
    "Attention": Varying(choose_attention),
    "Cast": Varying(_choose_cast),
    "Conv": _of_rounded(lower_conv),
    "Gemm": _of_rounded(lower_gemm),
    "MatMul": _of_rounded(lower_matmul),
}

OWN_OPERATORS: dict[str, Operator | Varying] = {ROUND: Pointwise(_round_to_tf32)}
"""Of the domain `graphopt`, besides standard ones."""

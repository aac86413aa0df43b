"""Conversions between element types, as numpy and ONNX Runtime do them on x86.

Floats become integers by dropping the fraction; integers wrap; float64 reaches the half precisions through float32.
Strings, 8-bit floats and types narrower than a byte have no elements in memory here and are refused by `dtype_of_value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of
from graphopt.backends.codegen.halves import bfloat16_bits, from_bfloat16
from graphopt.backends.codegen.mathematics import HALF_PRECISION, is_nonzero
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import (
    Lowered,
    Operator,
    Pointwise,
    Refused,
    Varying,
    dtype_of_value,
    is_bfloat16,
    shape_of,
)
from graphopt.backends.tensor import Index, Tensor, broadcast_index, lazy

_THROUGH = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64"}
"""Integers that a float reaches through a wider one, so that numbers out of range wrap."""


def convert(x: Expr, target: str) -> Expr:
    """`x` as an element of numpy type `target`."""
    source = dtype_of(x)
    if source == target:
        return x
    if source in HALF_PRECISION:
        return convert(tirx.Cast("float32", x), target)
    if target == "bool":
        return is_nonzero(x) if source.startswith("float") else tirx.NE(x, const(0, source))
    if source == "bool":
        return tirx.Select(x, const(1, target), const(0, target))
    if target in HALF_PRECISION:
        return tirx.Cast(target, cast(x, "float32"))
    if source.startswith("float"):
        return cast(cast(x, _THROUGH.get(target, target)), target)
    return cast(x, target)


def _choose_cast(node: ir.Node) -> Operator:
    """Halves become another type where they are read, so that they are what kernels store; to bfloat16 anything goes through float32."""
    if is_bfloat16(node.inputs[0]) or _is_widened(node):
        return Lowered(_widen)
    return Pointwise(_round if is_bfloat16(node.outputs[0]) else _cast)


def _is_widened(node: ir.Node) -> bool:
    """Whether a node makes float32 of float16."""
    source, value = node.inputs[0], node.outputs[0]
    return source is not None and (source.dtype, value.dtype) == (ir.DataType.FLOAT16, ir.DataType.FLOAT)


def _widen(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """What several kernels read is rounded once."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if len(value.uses()) > 1:
        ctx.values[source] = ctx.in_memory(ctx.tensor(source))
    x, dtype = ctx.tensor(source), dtype_of_value(value)

    def read(k: KernelBuilder, index: Index) -> Expr:
        half = x.read(k, index)
        if is_bfloat16(value) or not is_bfloat16(source):
            return convert(half, dtype)
        return convert(k.bind(from_bfloat16(half)), dtype)

    return [lazy(x.shape, dtype, read, x.cost + 1, x.block)]


def _round(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return bfloat16_bits(k, convert(k.bind(arguments[0]), "float32"))


def _cast_like(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The second input gives only its type, whatever its shape."""
    x, dtype = ctx.tensor(node.inputs[0]), dtype_of_value(node.outputs[0])  # type: ignore[arg-type]
    return [
        lazy(
            x.shape,
            dtype,
            lambda k, index: convert(x.read(k, broadcast_index(index, x.shape)), dtype),
            x.cost + 1,
            x.block,
        )
    ]


def _bit_cast(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The bits of an element as another type of the same size."""
    x, target = ctx.tensor(node.inputs[0]), dtype_of_value(node.outputs[0])  # type: ignore[arg-type]

    if shape_of(node.outputs[0]) != x.shape:
        raise Refused(
            f"its result of shape {shape_of(node.outputs[0])} is not that of its operand, {x.shape}"
        )

    def read(k: KernelBuilder, index: Index) -> Expr:
        value = x.read(k, broadcast_index(index, x.shape))
        return convert(value, target) if "bool" in (x.dtype, target) else tirx.op.reinterpret(target, value)

    return [lazy(x.shape, target, read, x.cost, x.block)]


def _cast(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return convert(k.bind(arguments[0]), dtype_of_value(node.outputs[0]))


OPERATORS: dict[str, Operator | Varying] = {
    "BitCast": Lowered(_bit_cast),
    "Cast": Varying(_choose_cast),
    "CastLike": Lowered(_cast_like),
}

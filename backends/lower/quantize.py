"""QuantizeLinear and DequantizeLinear per tensor, per axis and per block, and the arithmetic that all quantised
operators share: rounding half to even, saturation, parameters that lie along one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.rows import MAXIMUM, MINIMUM, Accumulator, Element, Fold
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import (
    Lowered,
    Operator,
    Pointwise,
    Refused,
    Varying,
    attribute,
    dtype_of_value,
)
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Index, Tensor, lazy, unravel

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")

QUANTIZE_COST = 8
"""Arithmetic operations of one quantisation."""

ROUND_TO_INTEGER = 1.5 * 2**23
ROUND_TO_INTEGER_BITS = 0x4B400000
"""A float32 and its bits: integers near it are exactly the numbers that float32 has there."""


def operand(ctx: Lowering, node: ir.Node, position: int) -> Tensor | None:
    """The tensor of an input, None where it is absent."""
    if position >= len(node.inputs) or node.inputs[position] is None:
        return None
    return ctx.tensor(node.inputs[position])  # type: ignore[arg-type]


def required(ctx: Lowering, node: ir.Node, position: int, what: str) -> Tensor:
    """The tensor of an input that must be there."""
    tensor = operand(ctx, node, position)
    if tensor is None:
        raise Refused(f"it has no {what}")
    return tensor


def quantized(value: Expr, zero_point: Expr | None, dtype: str) -> Expr:
    """float32 `value` (already divided by the scale) rounded half to even, shifted and saturated to `dtype`.

    NaN becomes the smallest value, as in ONNX Runtime.
    """
    limits = np.iinfo(dtype)
    low, high = const(float(limits.min), "float32"), const(float(limits.max), "float32")
    if zero_point is None:
        return cast(_rounded(value, low, high), dtype)
    shift = cast(zero_point, "float32")
    return cast(_rounded(value, low - shift, high - shift) + cast(zero_point, "int32"), dtype)


def _rounded(value: Expr, low: Expr, high: Expr) -> Expr:
    """Bounded (to less than 2**22), then rounded half to even to an int32.

    Adding 1.5 * 2**23 leaves no bits for a fraction, and the integer in the lowest bits of the sum.
    """
    bounded = tirx.op.min(tirx.op.max(value, low), high)
    shifted = bounded + const(ROUND_TO_INTEGER, "float32")
    return tirx.op.reinterpret("int32", shifted) - const(ROUND_TO_INTEGER_BITS, "int32")


def centred(value: Expr, zero_point: Expr | None) -> Expr:
    """An integer without its zero point, as int32."""
    value = cast(value, "int32")
    return value if zero_point is None else value - cast(zero_point, "int32")


def dequantized(value: Expr, scale: Expr, zero_point: Expr | None) -> Expr:
    """The float32 number that an integer stands for."""
    return cast(centred(value, zero_point), "float32") * cast(scale, "float32")


def parameter_index(
    index: Index, shape: Sequence[int], parameter: Tensor, axis: int, block: int
) -> list[Expr]:
    """Where the scale or zero point of element `index` lies: one for all, one an index of `axis`, or one a block."""
    if parameter.size == 1:
        return [0] * parameter.rank
    if parameter.rank == 1 and len(shape) != 1:
        return [index[axis]]
    if block == 0 and parameter.rank == 1:
        return [index[axis]]
    return [tirx.op.floordiv(i, block) if a == axis else i for a, i in enumerate(index)]


def _quantize_linear(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x, scale = ctx.cheap(first_input(ctx, node)), required(ctx, node, 1, "scale")
    zero_point = operand(ctx, node, 2)
    dtype = dtype_of_value(node.outputs[0])
    if dtype not in INTEGERS:
        raise Refused(f"quantising to {dtype} is not supported")
    axis, block = _placement(node, x)

    def read(k: KernelBuilder, index: Index) -> Expr:
        shift = _parameter(k, zero_point, index, x.shape, axis, block)
        divisor = _parameter(k, scale, index, x.shape, axis, block)
        return quantized(scaled_down(cast(x.read(k, index), "float32"), divisor), shift, dtype)

    return [lazy(x.shape, dtype, read, x.cost + QUANTIZE_COST, x.block)]


def scaled_down(value: Expr, scale: Expr) -> Expr:
    """`value / scale`; times the reciprocal where the scale is known, which may be off by one unit in the last place."""
    if isinstance(scale, tirx.FloatImm):
        reciprocal = np.float32(1) / np.float32(scale.value)
        if np.isfinite(reciprocal):
            return value * const(float(reciprocal), "float32")
    return value / cast(scale, "float32")


def _quantize_element(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    value, scale, *rest = arguments
    dtype = dtype_of_value(node.outputs[0])
    return quantized(scaled_down(cast(value, "float32"), scale), rest[0] if rest else None, dtype)


def _quantize(node: ir.Node) -> Operator:
    """Elementwise with one scale for all, and so part of the kernel before it."""
    dtype = node.outputs[0].dtype
    single = all(value is None or _is_single(value) for value in node.inputs[1:])
    if single and dtype is not None and dtype.numpy().name in INTEGERS:
        return Pointwise(_quantize_element, QUANTIZE_COST)
    return Lowered(_quantize_linear)


def _is_single(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static() and math.prod(value.shape.numpy()) == 1


def _dequantize_linear(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x, scale = first_input(ctx, node), required(ctx, node, 1, "scale")
    zero_point = operand(ctx, node, 2)
    dtype = dtype_of_value(node.outputs[0])
    axis, block = _placement(node, x)
    if x.constant is not None and scale.constant is not None:
        shift = None if zero_point is None else zero_point.constant
        return [ctx.constant(dequantize_array(x.constant, scale.constant, shift, axis, block).astype(dtype))]
    if x.dtype not in INTEGERS:
        raise Refused(f"dequantising {x.dtype} at run time is not supported")

    def read(k: KernelBuilder, index: Index) -> Expr:
        shift = _parameter(k, zero_point, index, x.shape, axis, block)
        factor = _parameter(k, scale, index, x.shape, axis, block)
        return cast(dequantized(x.read(k, index), factor, shift), dtype)

    return [lazy(x.shape, dtype, read, x.cost + 2, x.block)]


def _placement(node: ir.Node, x: Tensor) -> tuple[int, int]:
    """The axis and block size of a node's parameters."""
    return attribute(node, "axis", 1) % max(x.rank, 1), attribute(node, "block_size", 0)


def _parameter(
    k: KernelBuilder, parameter: Tensor | None, index: Index, shape: Sequence[int], axis: int, block: int
) -> Expr | None:
    if parameter is None:
        return None
    return parameter.read(k, parameter_index(index, shape, parameter, axis, block))


def dequantize_array(
    x: np.ndarray[Any, Any],
    scale: np.ndarray[Any, Any],
    zero_point: np.ndarray[Any, Any] | None,
    axis: int,
    block: int = 0,
) -> np.ndarray[Any, Any]:
    """What `dequantized` computes, for compile-time arrays."""

    def spread(parameter: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if parameter.size == 1:
            return parameter.reshape(())
        if block:
            return np.repeat(parameter, block, axis).take(range(x.shape[axis]), axis)
        return parameter.reshape([-1 if a == axis else 1 for a in range(x.ndim)])

    factor = spread(scale.astype(np.float32))
    if zero_point is None:
        return np.asarray(x.astype(np.float32) * factor)
    wide = np.int32 if x.dtype.name in INTEGERS else np.float32
    levels = x.astype(wide) - spread(zero_point.astype(wide))
    return np.asarray(levels.astype(np.float32) * factor)


def _dynamic_quantize_linear(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """uint8, with scale and zero point from the smallest and largest element; the range always holds 0."""
    x = ctx.strided(first_input(ctx, node))
    scale = ctx.result(node.outputs[1], (), "float32")
    zero_point = ctx.result(node.outputs[2], (), "uint8")
    return [dynamically_quantized(ctx, x, scale, zero_point), scale, zero_point]


def folded(k: KernelBuilder, fold: Fold, extent: int, dtype: str, lanes: int, element: Element) -> Expr:
    """`element(0) ... element(extent - 1)` folded into one value."""
    accumulator = Accumulator(k, fold, dtype, lanes, extent)
    accumulator.add(extent, element)
    return accumulator.total()


def dynamically_quantized(ctx: Lowering, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """`x` as uint8, its range and 0 mapped onto 0..255; stores the parameters found into the two scalars."""
    zero = const(0.0, "float32")
    with ctx.kernel("range") as k:
        low, high = (
            folded(k, fold, x.size, "float32", ctx.lanes, lambda p: x.reader(k, unravel(p, x.shape)))
            for fold in (MINIMUM, MAXIMUM)
        )
        low, high = k.bind(tirx.op.min(low, zero)), k.bind(tirx.op.max(high, zero))
        width = k.bind((high - low) / const(255.0, "float32"))
        step = k.bind(tirx.Select(tirx.EQ(width, zero), const(1.0, "float32"), width))
        k.store(storage_of(scale).buffer, 0, step)
        k.store(storage_of(zero_point).buffer, 0, quantized((zero - low) / step, None, "uint8"))

    def read(k: KernelBuilder, index: Index) -> Expr:
        return quantized(x.read(k, index) / scale.read(k, []), zero_point.read(k, []), "uint8")

    return lazy(x.shape, "uint8", read, QUANTIZE_COST)


OPERATORS: dict[str, Operator | Varying] = {
    "DequantizeLinear": Lowered(_dequantize_linear),
    "DynamicQuantizeLinear": Lowered(_dynamic_quantize_linear),
    "QuantizeLinear": Varying(_quantize),
}

MICROSOFT_OPERATORS: dict[str, Operator | Varying] = {
    "DequantizeLinear": Lowered(_dequantize_linear),
    "QuantizeLinear": Varying(_quantize),
}
"""The same in ONNX Runtime's own domain."""

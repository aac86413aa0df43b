"""Convolutions and matrix products of small integers: exact sums, then float scaling and rounding where the operator
asks for them (the same operations, in the same order, as ONNX Runtime)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.conv import ConvKernel, pack_weights
from graphopt.backends.kernels.conv_shape import ConvShape, choose_tile, flatten_pointwise
from graphopt.backends.kernels.depthwise import pack_depthwise
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.integer_conv import (
    IntegerDepthwiseKernel,
    Store,
    emit_plain_conv,
)
from graphopt.backends.kernels.window import Window
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.matmul import Product, multiply
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, dtype_of_value, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.quantize import (
    centred,
    dynamically_quantized,
    operand,
    quantized,
    required,
)
from graphopt.backends.lower.views import reshape, transpose
from graphopt.backends.lower.windows import window_of
from graphopt.backends.tensor import Index, Tensor, lazy

EXACT = 1 << 24
"""float32 holds every integer up to this."""

Finish = Callable[[KernelBuilder, Sequence[Expr], Expr], Expr]
"""What becomes of an int32 sum at an output index."""


def without_zero_point(ctx: Lowering, x: Tensor, zero_point: Tensor | None, axis: int = 0) -> Tensor:
    """`x - zero_point` as int32; a zero point of several elements lies along `axis`."""
    if x.constant is not None and (zero_point is None or zero_point.constant is not None):
        shift = np.int32(0) if zero_point is None else _along(zero_point.constant, x.rank, axis)
        return ctx.constant(x.constant.astype(np.int32) - shift)

    def read(k: KernelBuilder, index: Index) -> Expr:
        shift = None if zero_point is None else read_parameter(k, zero_point, index, axis)
        return centred(x.read(k, index), shift)

    return lazy(x.shape, "int32", read, x.cost + 1, x.block)


def _along(parameter: np.ndarray[Any, Any] | None, rank: int, axis: int) -> np.ndarray[Any, Any]:
    assert parameter is not None
    wide = parameter.astype(np.int32)
    if parameter.size == 1:
        return wide.reshape(())
    if parameter.ndim > 1:
        return wide
    return wide.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


def read_parameter(k: KernelBuilder, parameter: Tensor, index: Index, axis: int) -> Expr:
    """A scale or zero point at an index: the only one, that of the index along `axis`, or one a row of a matrix."""
    if parameter.size == 1:
        return parameter.read(k, [0] * parameter.rank)
    if parameter.rank == 1:
        return parameter.read(k, [index[axis]])
    return parameter.read(
        k, [0 if extent == 1 else i for i, extent in zip(index, parameter.shape, strict=True)]
    )


def scaling(ctx: Lowering, scales: Sequence[Tensor], divisor: Tensor | None) -> Tensor:
    """The product of scales divided by that of the output, computed now where all are known."""
    known = [t.constant for t in scales if t.constant is not None]
    if len(known) == len(scales) and (divisor is None or divisor.constant is not None):
        factor = known[0]
        for scale in known[1:]:
            factor = factor * scale
        factor = (
            factor
            if divisor is None or divisor.constant is None
            else factor / divisor.constant.reshape(-1)[0]
        )
        return ctx.constant(np.asarray(factor, np.float32))
    shape = max((t.shape for t in scales), key=len)

    def read(k: KernelBuilder, index: Index) -> Expr:
        value: Expr = const(1.0, "float32")
        for t in scales:
            value = value * t.read(k, [0] * t.rank if t.size == 1 else index)
        return value if divisor is None else value / divisor.read(k, [0] * divisor.rank)

    return ctx.in_memory(lazy(shape, "float32", read))


def requantize(factor: Tensor, zero_point: Tensor | None, dtype: str, axis: int) -> Finish:
    """Scale a sum and round it to `dtype`."""

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        shift = None if zero_point is None else read_parameter(k, zero_point, index, axis)
        value = cast(total, "float32") * read_parameter(k, factor, index, axis)
        return quantized(value, shift, dtype)

    return finish


def lower_qlinear_conv(ctx: Lowering, node: ir.Node) -> None:
    """QLinearConv: uint8 or int8, one scale or one a filter."""
    x = without_zero_point(ctx, required(ctx, node, 0, "input"), operand(ctx, node, 2))
    weights = without_zero_point(ctx, required(ctx, node, 3, "weight"), operand(ctx, node, 5))
    bias = operand(ctx, node, 8)
    scales = [required(ctx, node, 1, "scale"), required(ctx, node, 4, "scale")]
    factor = scaling(ctx, scales, required(ctx, node, 6, "output scale"))
    dtype = dtype_of_value(node.outputs[0])
    scale_sum = requantize(factor, operand(ctx, node, 7), dtype, 1)

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        total = total if bias is None else total + bias.read(k, [index[1]])
        return scale_sum(k, index, total)

    _convolve(ctx, node, x, weights, finish)


def lower_conv_integer(ctx: Lowering, node: ir.Node) -> None:
    """ConvInteger: the int32 sums themselves."""
    x = without_zero_point(ctx, required(ctx, node, 0, "input"), operand(ctx, node, 2))
    weights = without_zero_point(ctx, required(ctx, node, 1, "weight"), operand(ctx, node, 3))
    _convolve(ctx, node, x, weights, lambda k, index, total: total)


def _convolve(ctx: Lowering, node: ir.Node, x: Tensor, weights: Tensor, finish: Finish) -> None:
    """Convolve int32 tensors that hold small integers, with the kernel that suits the geometry."""
    if x.rank not in (3, 4):
        raise Refused(f"convolution of integers of rank {x.rank} is not supported")
    out = shape_of(node.outputs[0])
    groups = attribute(node, "group", 1)
    window = window_of(node, x.shape[2:], out[2:], weights.shape[2:])
    shape = ConvShape(x.shape[0], groups, weights.shape[1], weights.shape[0] // groups, window)
    if weights.constant is None:
        _plain(ctx, node, x, weights, shape, finish)
        return
    kernel = weights.constant.reshape(*weights.shape[:2], *window.kernel)
    dtype = _accumulator(kernel)
    kernel = kernel.astype(dtype)
    source = _as_float(x) if dtype == "float32" else x
    if groups == x.shape[1] and kernel.shape[:2] == (groups, 1):
        _depthwise(ctx, node, source, kernel, window, finish)
    elif shape.is_aligned(ctx.lanes):
        _direct(ctx, node, source, kernel, shape, finish)
    else:
        _plain(ctx, node, x, weights, shape, finish)


def _accumulator(weights: np.ndarray[Any, Any]) -> str:
    """float32 where no sum can leave the range in which it is exact, else int32; inputs are within +-255."""
    largest = np.abs(weights.astype(np.int64)).reshape(weights.shape[0], -1).sum(axis=1).max(initial=0) * 255
    return "float32" if largest < EXACT else "int32"


def _as_float(x: Tensor) -> Tensor:
    return lazy(x.shape, "float32", lambda k, index: cast(x.read(k, index), "float32"), x.cost + 1, x.block)


def _depthwise(
    ctx: Lowering, node: ir.Node, x: Tensor, weights: np.ndarray[Any, Any], window: Window, finish: Finish
) -> None:
    source = ctx.store(x, ctx.lanes)
    store, out = _result(ctx, node, finish, ctx.lanes)
    packed = ctx.constant_buffer(pack_depthwise(weights, ctx.lanes))
    kernel = IntegerDepthwiseKernel(window, ctx.lanes, source, storage_of(out), packed, store)
    with ctx.kernel("integer_depthwise") as k:
        kernel.emit(k)


def _direct(
    ctx: Lowering, node: ir.Node, x: Tensor, weights: np.ndarray[Any, Any], shape: ConvShape, finish: Finish
) -> None:
    lanes = ctx.lanes
    source = ctx.store(x, x.block)
    shape = flatten_pointwise(shape)
    tile = choose_tile(shape, ctx.core)
    packed = ctx.constant_buffer(pack_weights(weights, shape, tile, lanes))
    store, _ = _result(ctx, node, finish, lanes)

    def store_sum(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> None:
        store(k, index, cast(total, "int32"))

    kernel = ConvKernel(shape, tile, ctx.core, source, packed, None, store_sum)
    with ctx.kernel("integer_conv") as k:
        kernel.emit(k)


def _plain(
    ctx: Lowering, node: ir.Node, x: Tensor, weights: Tensor, shape: ConvShape, finish: Finish
) -> None:
    window = shape.window
    source = reshape(ctx.store(x), (*x.shape[:2], *window.input))
    kernel = reshape(ctx.strided(weights), (*weights.shape[:2], *window.kernel))
    store, out = _result(ctx, node, finish, 0)

    def store_at(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> None:
        store(k, index if out.rank == 4 else [*index[:2], index[3]], total)

    with ctx.kernel("integer_conv") as k:
        emit_plain_conv(k, (*out.shape[:2], *window.output), window, source, kernel, shape.groups, store_at)


def _result(ctx: Lowering, node: ir.Node, finish: Finish, block: int) -> tuple[Store, Tensor]:
    """Where the results of a convolution go, and how a sum gets there."""
    after: Epilogue = epilogue(ctx, node, block)
    out = ctx.result(after.value, after.shape, after.result.dtype, block)

    def store(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> None:
        after.store(k, storage_of(out), index, finish(k, index, total))

    return store, out


def lower_qlinear_matmul(ctx: Lowering, node: ir.Node) -> None:
    """QLinearMatMul: scales of the left operand may go by row, those of the right one by column."""
    left, right = _matrices(ctx, node, (0, 2), (3, 5))
    factors = [(required(ctx, node, 1, "scale"), -2), (required(ctx, node, 4, "scale"), -1)]
    divisor, zero_point = required(ctx, node, 6, "output scale"), operand(ctx, node, 7)
    dtype = dtype_of_value(node.outputs[0])

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        first, second = (cast(read_parameter(k, t, index, axis), "float32") for t, axis in factors)
        scale = first * second / cast(read_parameter(k, divisor, index, -2), "float32")
        shift = None if zero_point is None else read_parameter(k, zero_point, index, -2)
        return quantized(cast(total, "float32") * scale, shift, dtype)

    multiply(ctx, node, Product(left, right), finish)


def lower_matmul_integer(ctx: Lowering, node: ir.Node) -> None:
    """MatMulInteger: the int32 sums themselves."""
    left, right = _matrices(ctx, node, (0, 2), (1, 3))
    multiply(ctx, node, Product(left, right), lambda k, index, total: total)


def _matrices(
    ctx: Lowering, node: ir.Node, left: tuple[int, int], right: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Both operands as int32 without zero points; the pairs are positions of data and zero point."""
    a = without_zero_point(ctx, required(ctx, node, left[0], "operand"), operand(ctx, node, left[1]), -2)
    b = without_zero_point(ctx, required(ctx, node, right[0], "operand"), operand(ctx, node, right[1]), -1)
    if min(a.rank, b.rank) < 2:
        raise Refused("a product of integers with a vector operand is not supported")
    return _stored(ctx, a), _stored(ctx, b)


def _stored(ctx: Lowering, x: Tensor) -> Tensor:
    return x if x.constant is not None else ctx.store(x)


def lower_qgemm(ctx: Lowering, node: ir.Node) -> None:
    """QGemm: `alpha * A' * B'` plus an int32 bias; float32 without an output scale."""
    left, right = _matrices(ctx, node, (0, 2), (3, 5))
    left = transpose(left, (1, 0)) if attribute(node, "transA", 0) else left
    right = _transposed(ctx, right) if attribute(node, "transB", 0) else right
    bias = operand(ctx, node, 6)
    alpha = ctx.constant(np.asarray(attribute(node, "alpha", 1.0), np.float32))
    scales = [alpha, required(ctx, node, 1, "scale"), required(ctx, node, 4, "scale")]
    divisor = operand(ctx, node, 7)
    factor = scaling(ctx, scales, divisor)
    zero_point, dtype = operand(ctx, node, 8), dtype_of_value(node.outputs[0])
    rounded = requantize(factor, zero_point, dtype, -1) if divisor is not None else _scaled(factor)

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        if bias is not None:
            tail = index[2 - bias.rank :]
            total = total + bias.read(k, [0 if d == 1 else i for i, d in zip(tail, bias.shape, strict=True)])
        return rounded(k, index, total)

    multiply(ctx, node, Product(left, right), finish)


def _transposed(ctx: Lowering, x: Tensor) -> Tensor:
    return ctx.constant(x.constant.T) if x.constant is not None else transpose(x, (1, 0))


def _scaled(factor: Tensor, bias: Tensor | None = None) -> Finish:
    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        value = cast(total, "float32") * read_parameter(k, factor, index, -1)
        return value if bias is None else value + read_parameter(k, bias, index, -1)

    return finish


def lower_matmul_integer_to_float(ctx: Lowering, node: ir.Node) -> None:
    """MatMulIntegerToFloat: the product of what both integer operands stand for, plus a float bias."""
    left, right = _matrices(ctx, node, (0, 4), (1, 5))
    factor = scaling(ctx, [required(ctx, node, 2, "scale"), required(ctx, node, 3, "scale")], None)
    multiply(ctx, node, Product(left, right), _scaled(factor, operand(ctx, node, 6)))


def lower_dynamic_quantize_matmul(ctx: Lowering, node: ir.Node) -> None:
    """DynamicQuantizeMatMul: the float operand is quantised to uint8 with the range it has at run time."""
    x = ctx.strided(required(ctx, node, 0, "operand"))
    scale, zero_point = ctx.new((), "float32"), ctx.new((), "uint8")
    levels = dynamically_quantized(ctx, x, scale, zero_point)
    left = ctx.store(without_zero_point(ctx, levels, zero_point))
    right = _stored(
        ctx, without_zero_point(ctx, required(ctx, node, 1, "operand"), operand(ctx, node, 3), -1)
    )
    factor = scaling(ctx, [scale, required(ctx, node, 2, "scale")], None)
    multiply(ctx, node, Product(left, right), _scaled(factor, operand(ctx, node, 4)))


OPERATORS: dict[str, Operator] = {
    "ConvInteger": Anchor(lower_conv_integer),
    "MatMulInteger": Anchor(lower_matmul_integer),
    "QLinearConv": Anchor(lower_qlinear_conv),
    "QLinearMatMul": Anchor(lower_qlinear_matmul),
}

MICROSOFT_OPERATORS: dict[str, Operator] = {
    "DynamicQuantizeMatMul": Anchor(lower_dynamic_quantize_matmul),
    "MatMulIntegerToFloat": Anchor(lower_matmul_integer_to_float),
    "QGemm": Anchor(lower_qgemm),
}
"""Operators of ONNX Runtime's own domain."""

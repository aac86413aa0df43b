"""Convolutions and matrix products of small integers: exact sums, then float scaling and rounding where the operator
asks for them (the same operations, in the same order, as ONNX Runtime)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.byte_arithmetic import byte_arithmetic
from graphopt.backends.kernels.gemm import GemmKernel, Store
from graphopt.backends.kernels.panels import Panels, panel_count
from graphopt.backends.kernels.quads import QUAD
from graphopt.backends.kernels.units import pack_unit_panels
from graphopt.backends.lower.byte_products import PREPARE
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.matmul import Product, emit_product, multiply
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, dtype_of_value
from graphopt.backends.lower.quantize import (
    centred,
    dynamically_quantized,
    operand,
    quantized,
    required,
)
from graphopt.backends.lower.views import reshape, transpose
from graphopt.backends.schedules import byte_gemm
from graphopt.backends.tensor import Index, Tensor, lazy, unravel

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


@dataclass(frozen=True)
class Operand:
    """A matrix of bytes and its zero point: one, or one a row of the left operand, a column of the right one (`axis`)."""

    levels: Tensor
    zero: Tensor | None
    axis: int

    @classmethod
    def of(cls, ctx: Lowering, node: ir.Node, levels: int, zero: int, axis: int) -> Operand:
        """The operand whose levels and zero point are the inputs at these positions."""
        found = required(ctx, node, levels, "operand")
        if found.rank < 2:
            raise Refused("a product of integers with a vector operand is not supported")
        return cls(found, operand(ctx, node, zero), axis)

    def centred(self, ctx: Lowering) -> Tensor:
        """As int32 without its zero point, known or in memory."""
        x = without_zero_point(ctx, self.levels, self.zero, self.axis)
        return x if x.constant is not None else ctx.store(x)

    def transposed(self, ctx: Lowering) -> Operand:
        """Its rows as columns."""
        x = self.levels
        flipped = ctx.constant(x.constant.T) if x.constant is not None else transpose(x, (1, 0))
        return replace(self, levels=flipped)


def _multiply(ctx: Lowering, node: ir.Node, left: Operand, right: Operand, finish: Finish) -> None:
    """Emit the kernel that suits the operands; `finish` gets exact sums."""
    known = without_zero_point(ctx, right.levels, right.zero, right.axis).constant
    made = None
    if known is not None and _are_bytes(left, known):
        made = ctx.twin(byte_product)(ctx, left.levels, known)
    if known is None or made is None:
        multiply(ctx, node, Product(left.centred(ctx), right.centred(ctx)), finish)
        return
    kernel, moved = made
    zeros = _zero_products(ctx, left, known, moved)

    def finish_sum(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        return finish(k, index, total if zeros is None else total - zeros(k, index[-1]))

    emit_product(ctx, node, kernel, finish_sum)


def _are_bytes(left: Operand, right: np.ndarray[Any, Any]) -> bool:
    """Whether all columns multiply the same bytes, by numbers that are bytes without their zero point."""
    fits = bool(right.min(initial=0) >= -128 and right.max(initial=0) <= 127)
    single = left.zero is None or left.zero.size == 1
    return right.ndim == 2 and fits and single


def byte_product(
    ctx: Lowering, left: Tensor, right: np.ndarray[Any, Any]
) -> tuple[Callable[[Store], GemmKernel], int] | None:
    """The kernel of bytes `[rows..., depth]` times a known matrix, and by how much it moves the zero point of the bytes. None where the
    core has no instruction for it, and where quads are not whole."""
    if ctx.core.dot is None or right.shape[0] % QUAD:
        return None
    arithmetic, (depth, columns) = byte_arithmetic(ctx.core, left.dtype), right.shape
    rows, steps = left.shape[:-1], -(-depth // arithmetic.unit)
    source = PREPARE[type(arithmetic)](ctx, reshape(ctx.dense(left), (math.prod(rows), depth)))
    tile = byte_gemm.tile_of(ctx.schedule(byte_gemm.workload(math.prod(rows), columns, depth, left.dtype)))
    packed = ctx.constant_buffer(pack_unit_panels(right, tile.vectors, arithmetic))
    count = panel_count(columns, tile.vectors, ctx.lanes)
    panels = Panels(packed, (), count, steps, tile.vectors, arithmetic.step)
    shape = (math.prod(rows), columns)

    def kernel(store: Store) -> GemmKernel:
        def restored(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
            store(k, [*unravel(index[0], rows), index[1]], value)

        make = byte_gemm.KERNELS[type(arithmetic)]
        return make(source, panels, shape, tile, ctx.core, "int32", restored, arithmetic=arithmetic)

    return kernel, arithmetic.moved


def _zero_products(
    ctx: Lowering, left: Operand, right: np.ndarray[Any, Any], moved: int
) -> Callable[[KernelBuilder, Expr], Expr] | None:
    """What the zero point of the left operand adds to the sums of a column. None where it adds nothing."""
    totals, parameter = right.sum(axis=0, dtype=np.int32), left.zero
    if parameter is None or parameter.constant is not None:
        zero = 0 if parameter is None else int(np.asarray(parameter.constant).reshape(-1)[0])
        table = ctx.constant(totals * np.int32(zero + moved))
        return (lambda k, column: table.read(k, [column])) if zero + moved else None
    by_column = ctx.constant(totals)

    def products(k: KernelBuilder, column: Expr) -> Expr:
        shift = cast(read_parameter(k, parameter, [0], 0), "int32") + moved
        return by_column.read(k, [column]) * shift

    return products


def lower_qlinear_matmul(ctx: Lowering, node: ir.Node) -> None:
    """QLinearMatMul: scales of the left operand may go by row, those of the right one by column."""
    factors = [(required(ctx, node, 1, "scale"), -2), (required(ctx, node, 4, "scale"), -1)]
    divisor, zero_point = required(ctx, node, 6, "output scale"), operand(ctx, node, 7)
    dtype = dtype_of_value(node.outputs[0])

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        first, second = (cast(read_parameter(k, t, index, axis), "float32") for t, axis in factors)
        scale = first * second / cast(read_parameter(k, divisor, index, -2), "float32")
        shift = None if zero_point is None else read_parameter(k, zero_point, index, -2)
        return quantized(cast(total, "float32") * scale, shift, dtype)

    _multiply(ctx, node, Operand.of(ctx, node, 0, 2, -2), Operand.of(ctx, node, 3, 5, -1), finish)


def lower_matmul_integer(ctx: Lowering, node: ir.Node) -> None:
    """MatMulInteger: the int32 sums themselves."""
    left, right = Operand.of(ctx, node, 0, 2, -2), Operand.of(ctx, node, 1, 3, -1)
    _multiply(ctx, node, left, right, lambda k, index, total: total)


def lower_qgemm(ctx: Lowering, node: ir.Node) -> None:
    """QGemm: `alpha * A' * B'` plus an int32 bias; float32 without an output scale."""
    left, right = Operand.of(ctx, node, 0, 2, -2), Operand.of(ctx, node, 3, 5, -1)
    left = left.transposed(ctx) if attribute(node, "transA", 0) else left
    right = right.transposed(ctx) if attribute(node, "transB", 0) else right
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

    _multiply(ctx, node, left, right, finish)


def _scaled(factor: Tensor, bias: Tensor | None = None) -> Finish:
    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        value = cast(total, "float32") * read_parameter(k, factor, index, -1)
        return value if bias is None else value + read_parameter(k, bias, index, -1)

    return finish


def lower_matmul_integer_to_float(ctx: Lowering, node: ir.Node) -> None:
    """MatMulIntegerToFloat: the product of what both integer operands stand for, plus a float bias."""
    left, right = Operand.of(ctx, node, 0, 4, -2), Operand.of(ctx, node, 1, 5, -1)
    factor = scaling(ctx, [required(ctx, node, 2, "scale"), required(ctx, node, 3, "scale")], None)
    _multiply(ctx, node, left, right, _scaled(factor, operand(ctx, node, 6)))


def lower_dynamic_quantize_matmul(ctx: Lowering, node: ir.Node) -> None:
    """DynamicQuantizeMatMul: the float operand is quantised to uint8 with the range it has at run time."""
    x = ctx.strided(required(ctx, node, 0, "operand"))
    scale, zero_point = ctx.new((), "float32"), ctx.new((), "uint8")
    left = Operand(dynamically_quantized(ctx, x, scale, zero_point), zero_point, -2)
    factor = scaling(ctx, [scale, required(ctx, node, 2, "scale")], None)
    _multiply(ctx, node, left, Operand.of(ctx, node, 1, 3, -1), _scaled(factor, operand(ctx, node, 4)))


OPERATORS: dict[str, Operator] = {
    "MatMulInteger": Anchor(lower_matmul_integer),
    "QLinearMatMul": Anchor(lower_qlinear_matmul),
}

MICROSOFT_OPERATORS: dict[str, Operator] = {
    "DynamicQuantizeMatMul": Anchor(lower_dynamic_quantize_matmul),
    "MatMulIntegerToFloat": Anchor(lower_matmul_integer_to_float),
    "QGemm": Anchor(lower_qgemm),
}
"""Operators of ONNX Runtime's own domain."""

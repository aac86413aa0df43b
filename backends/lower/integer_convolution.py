"""Convolutions of bytes: exact sums, then float scaling and rounding where the operator asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast
from graphopt.backends.kernels.byte_arithmetic import byte_arithmetic
from graphopt.backends.kernels.byte_packing import (
    emit_quads,
    filter_shifts,
    zero_sums,
)
from graphopt.backends.kernels.conv import ConvKernel, pack_weights, pad_bias
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile, choose_tile, flatten_pointwise
from graphopt.backends.kernels.depthwise import pack_depthwise
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.integer_conv import IntegerDepthwiseKernel, Store, emit_plain_conv
from graphopt.backends.kernels.quads import QUAD
from graphopt.backends.kernels.units import pack_unit_filters
from graphopt.backends.lower.channels import channel_blocks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.integer import Finish, requantize, scaling, without_zero_point
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, dtype_of_value, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.quantize import operand, required
from graphopt.backends.lower.views import reshape
from graphopt.backends.lower.windows import window_of
from graphopt.backends.schedules import byte_conv
from graphopt.backends.tensor import Tensor, lazy

EXACT = 1 << 24
"""float32 holds every integer up to this."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Convolution:
    """Bytes, their zero points, and the shape; `finish` says what becomes of a sum."""

    ctx: Lowering
    node: ir.Node
    input: Tensor
    input_zero: Tensor | None
    weights: Tensor
    weights_zero: Tensor | None
    shape: ConvShape
    finish: Finish

    @property
    def centred_weights(self) -> Array | None:
        """int32 `[filters, channels, kh, kw]` without zero points, where they are known."""
        known = without_zero_point(self.ctx, self.weights, self.weights_zero).constant
        if known is None:
            return None
        return known.reshape(*self.weights.shape[:2], *self.shape.window.kernel)

    @property
    def zero(self) -> int | None:
        """The zero point of the input, where it is known and is one for all."""
        if self.input_zero is None:
            return 0
        known = self.input_zero.constant
        return int(known.reshape(-1)[0]) if known is not None and known.size == 1 else None

    @property
    def is_depthwise(self) -> bool:
        return self.shape.channels == self.shape.filters == 1 and self.shape.groups > 1

    def uses_bytes(self, weights: Array) -> bool:
        """Whether the core has an instruction for it, and each group starts on a whole block of channels."""
        shape, lanes = self.shape, self.ctx.lanes
        starts_a_block = shape.groups == 1 or shape.channels % lanes == 0
        fits = bool(weights.min(initial=0) >= -255 and weights.max(initial=0) <= 255)
        return self.ctx.core.dot is not None and starts_a_block and shape.is_aligned(lanes) and fits

    def result(self, block: int) -> tuple[Store, Tensor]:
        """Where the results go, and how a sum gets there."""
        after: Epilogue = epilogue(self.ctx, self.node, block)
        out = self.ctx.result(after.value, after.shape, after.result.dtype, block)

        def store(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> None:
            after.store(k, storage_of(out), index, self.finish(k, index, cast(total, "int32")))

        return store, out


def lower_qlinear_conv(ctx: Lowering, node: ir.Node) -> None:
    """QLinearConv: uint8 or int8, one scale or one a filter."""
    bias = operand(ctx, node, 8)
    scales = [required(ctx, node, 1, "scale"), required(ctx, node, 4, "scale")]
    factor = scaling(ctx, scales, required(ctx, node, 6, "output scale"))
    scale_sum = requantize(factor, operand(ctx, node, 7), dtype_of_value(node.outputs[0]), 1)

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> Expr:
        total = total if bias is None else total + bias.read(k, [index[1]])
        return scale_sum(k, index, total)

    _convolve(ctx, node, (0, 2), (3, 5), finish)


def lower_conv_integer(ctx: Lowering, node: ir.Node) -> None:
    """ConvInteger: the int32 sums themselves."""
    _convolve(ctx, node, (0, 2), (1, 3), lambda k, index, total: total)


def _convolve(
    ctx: Lowering, node: ir.Node, data: tuple[int, int], filters: tuple[int, int], finish: Finish
) -> None:
    """Choose the kernel that suits the geometry; the pairs are positions of an operand and of its zero point."""
    x, weights = required(ctx, node, data[0], "input"), required(ctx, node, filters[0], "weight")
    if x.rank not in (3, 4):
        raise Refused(f"convolution of integers of rank {x.rank} is not supported")
    groups = attribute(node, "group", 1)
    window = window_of(node, x.shape[2:], shape_of(node.outputs[0])[2:], weights.shape[2:])
    shape = ConvShape(x.shape[0], groups, weights.shape[1], weights.shape[0] // groups, window)
    zeros = operand(ctx, node, data[1]), operand(ctx, node, filters[1])
    convolution = Convolution(ctx, node, x, zeros[0], weights, zeros[1], shape, finish)
    known, zero = convolution.centred_weights, convolution.zero
    if known is None or ctx.lanes == 1:
        ctx.twin(plain_convolution)(convolution)
    elif convolution.is_depthwise and zero is not None:
        _depthwise(convolution, known, zero)
    elif zero is not None and convolution.uses_bytes(known):
        _bytes(convolution, known, zero)
    elif shape.is_aligned(ctx.lanes):
        _direct(convolution, known)
    else:
        plain_convolution(convolution)


def _accumulator(weights: Array) -> str:
    """float32 where no sum can leave the range in which it is exact, else int32; inputs are within +-255."""
    largest = np.abs(weights.astype(np.int64)).reshape(weights.shape[0], -1).sum(axis=1).max(initial=0) * 255
    return "float32" if largest < EXACT else "int32"


def _depthwise(convolution: Convolution, weights: Array, zero: int) -> None:
    ctx, lanes = convolution.ctx, convolution.ctx.lanes
    source = channel_blocks(ctx, convolution.input)
    store, out = convolution.result(lanes)
    packed = ctx.constant_buffer(pack_depthwise(weights.astype(_accumulator(weights)), lanes))
    kernel = IntegerDepthwiseKernel(
        convolution.shape.window, lanes, source, storage_of(out), packed, zero, store
    )
    with ctx.kernel("integer_depthwise") as k:
        kernel.emit(k)


def _bytes(convolution: Convolution, weights: Array, zero: int) -> None:
    """On bytes, unless it has been measured that floats are faster."""
    ctx, shape, x = convolution.ctx, flatten_pointwise(convolution.shape), convolution.input
    shifts = filter_shifts(weights)
    block = QUAD if _fits_a_quad(ctx, x) else ctx.lanes
    config = ctx.schedule(byte_conv.workload(shape, x.dtype, bool(shifts.any()), block))
    tile = byte_conv.tile_of(config)
    if byte_conv.is_float(config):
        _direct(convolution, weights, tile)
        return
    arithmetic = byte_arithmetic(ctx.core, x.dtype)
    source = _blocks_of_quads(ctx, x)
    moved = weights - shifts[:, None, None, None]
    packed = ctx.constant_buffer(pack_unit_filters(moved, shape, tile, arithmetic, source.block))
    shift_buffer = ctx.constant_buffer(pad_bias(shifts, shape, ctx.lanes)) if shifts.any() else None
    bias = taps = None
    sums = zero_sums(weights, shifts, shape, zero, arithmetic)
    if sums.any():
        if all(axis.is_inside for axis in shape.window.axes):
            bias = ctx.constant_buffer(sums.sum(axis=(0, 1), dtype=np.int32))
        else:
            taps = ctx.constant_buffer(sums)
    store, _ = convolution.result(ctx.lanes)
    operands = (source, packed, bias, store)
    zeros = {"taps": taps, "shifts": shift_buffer}
    kernel = byte_conv.KERNELS[type(arithmetic)](
        shape, tile, ctx.core, *operands, **zeros, arithmetic=arithmetic
    )
    with ctx.kernel("integer_conv") as k:
        kernel.emit(k)


def _blocks_of_quads(ctx: Lowering, x: Tensor) -> Tensor:
    """The input in channel blocks: in blocks of one quad where it has no more and must be moved anyway."""
    if not _fits_a_quad(ctx, x):
        return channel_blocks(ctx, x)
    x = ctx.unconditional(x)
    copy = ctx.new(x.shape, x.dtype, QUAD)
    with ctx.kernel("to_quads") as k:
        emit_quads(k, x, storage_of(copy), ctx.lanes)
    return copy


def _fits_a_quad(ctx: Lowering, x: Tensor) -> bool:
    """Whether all channels of an image make one quad, which it is to be moved into."""
    return not x.is_blocked and x.rank == 4 and x.shape[1] <= QUAD < ctx.lanes


def _direct(convolution: Convolution, weights: Array, tile: ConvTile | None = None) -> None:
    """By vectors of float32 or int32: on cores without an instruction for bytes, with weights that are none, and where that is
    faster."""
    ctx, shape = convolution.ctx, flatten_pointwise(convolution.shape)
    dtype = _accumulator(weights)
    x = without_zero_point(ctx, convolution.input, convolution.input_zero)
    wide = lazy(x.shape, dtype, lambda k, index: cast(x.read(k, index), dtype), x.cost + 1, x.block)
    source, tile = ctx.store(wide, wide.block), tile or choose_tile(shape, ctx.core)
    packed = ctx.constant_buffer(pack_weights(weights.astype(dtype), shape, tile, ctx.lanes))
    store, _ = convolution.result(ctx.lanes)
    with ctx.kernel("integer_conv") as k:
        ConvKernel(shape, tile, ctx.core, source, packed, None, store).emit(k)


def plain_convolution(convolution: Convolution) -> None:
    """One output after the other."""
    ctx, shape = convolution.ctx, convolution.shape
    x = without_zero_point(ctx, convolution.input, convolution.input_zero)
    weights = without_zero_point(ctx, convolution.weights, convolution.weights_zero)
    source = reshape(ctx.store(x), (*x.shape[:2], *shape.window.input))
    kernel = reshape(ctx.strided(weights), (*weights.shape[:2], *shape.window.kernel))
    store, out = convolution.result(0)

    def store_at(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> None:
        store(k, index if out.rank == 4 else [*index[:2], index[3]], total)

    extents = (*out.shape[:2], *shape.window.output)
    with ctx.kernel("integer_conv") as k:
        emit_plain_conv(k, extents, shape.window, source, kernel, shape.groups, store_at)


OPERATORS: dict[str, Operator] = {
    "ConvInteger": Anchor(lower_conv_integer),
    "QLinearConv": Anchor(lower_qlinear_conv),
}

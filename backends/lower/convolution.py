"""Conv: reads the node, and chooses the kernel by what is known of weights, groups and type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast
from graphopt.backends.kernels import conv
from graphopt.backends.kernels.conv import ConvKernel, ConvShape
from graphopt.backends.kernels.conv_rows import Geometry, RowsKernel, Weight
from graphopt.backends.kernels.depthwise import DepthwiseKernel, pack_depthwise
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.registers import REGISTERS
from graphopt.backends.kernels.row_source import RowSource, emit_padded_rows, padded_rows
from graphopt.backends.layout import Strided
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.matmul import ACCUMULATORS
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.views import reshape
from graphopt.backends.lower.windows import axes_of, window
from graphopt.backends.tensor import Tensor, unravel

FEW = 4
"""Output channels up to which lanes along rows beat a vector of output channels that is mostly empty."""

LARGE = 9
"""Taps from which that gain pays for bringing the input into rows."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Convolution:
    """The operands of a node. `weights` are `[filters * groups, channels, taps...]`."""

    input: Tensor
    weights: Tensor
    bias: Tensor | None
    geometry: Geometry

    @property
    def is_packable(self) -> bool:
        """Whether kernels with packed weights and lanes along channels apply."""
        constant = all(t is None or t.constant is not None for t in (self.weights, self.bias))
        return constant and self.input.dtype == "float32" and len(self.geometry.axes) <= 2

    @property
    def is_depthwise(self) -> bool:
        return self.geometry.channels == self.geometry.filters == 1 and self.geometry.groups > 1

    @property
    def fills_vectors(self) -> bool:
        """Whether vectors of output channels are worth it: groups are whole vectors, or one that is not too small."""
        return self.geometry.filters > FEW or math.prod(axis.kernel for axis in self.geometry.axes) < LARGE


def lower_conv(ctx: Lowering, node: ir.Node) -> None:
    """Conv of any rank, type and number of groups; weights may be computed at run time."""
    x, weights, *rest = ctx.inputs(node)
    assert x is not None and weights is not None
    if x.rank < 3:
        raise Refused("its input has no spatial axes")
    axes = axes_of(node, x.shape[2:], shape_of(node.outputs[0])[2:], weights.shape[2:])
    groups = attribute(node, "group", 1)
    geometry = Geometry(x.shape[0], groups, weights.shape[1], weights.shape[0] // max(groups, 1), axes)
    convolution = Convolution(x, weights, rest[0] if rest else None, geometry)
    if convolution.is_packable and convolution.is_depthwise:
        _depthwise(ctx, node, convolution)
    elif convolution.is_packable and convolution.fills_vectors and direct_shape(geometry).is_aligned(ctx.lanes):
        _direct(ctx, node, convolution)
    else:
        _rows(ctx, node, convolution)


def direct_shape(geometry: Geometry) -> ConvShape:
    """The shape of a convolution of one or two spatial axes."""
    return ConvShape(
        geometry.batch, geometry.groups, geometry.channels, geometry.filters, window(geometry.axes)
    )


def _depthwise(ctx: Lowering, node: ir.Node, convolution: Convolution) -> None:
    lanes, geometry = ctx.lanes, convolution.geometry
    source = ctx.blocked(convolution.input)
    after = epilogue(ctx, node, lanes)
    out = ctx.result(after.value, after.shape, after.result.dtype, lanes)
    bias = constant_of(convolution.bias)
    kernel = DepthwiseKernel(
        window(geometry.axes),
        lanes,
        source,
        storage_of(out),
        weights=ctx.constant_buffer(pack_depthwise(as_images(convolution.weights), lanes)),
        bias=None if bias is None else ctx.constant_buffer(np.pad(bias, (0, -geometry.groups % lanes))),
        epilogue=after,
    )
    with ctx.kernel("depthwise") as k:
        kernel.emit(k)


def _direct(ctx: Lowering, node: ir.Node, convolution: Convolution) -> None:
    lanes = ctx.lanes
    shape = conv.flatten_pointwise(direct_shape(convolution.geometry))
    tile = conv.choose_tile(shape, lanes)
    source = ctx.in_memory(convolution.input)
    after = epilogue(ctx, node, lanes)
    out = ctx.result(after.value, after.shape, after.result.dtype, lanes)
    bias = constant_of(convolution.bias)
    kernel = ConvKernel(
        shape,
        tile,
        lanes,
        source,
        weights=ctx.constant_buffer(conv.pack_weights(as_images(convolution.weights), shape, tile, lanes)),
        bias=None if bias is None else ctx.constant_buffer(conv.pad_bias(bias, shape, lanes)),
        epilogue=after,
        out=storage_of(out),
    )
    with ctx.kernel("conv") as k:
        kernel.emit(k)


def _rows(ctx: Lowering, node: ir.Node, convolution: Convolution) -> None:
    weights = ctx.strided(convolution.weights)
    geometry, x = convolution.geometry, convolution.input
    spatial = [axis.output for axis in geometry.axes]
    if all(axis.is_pointwise for axis in geometry.axes):
        row = Axis(math.prod(spatial), math.prod(spatial), 1, 1, 0, 1)
        geometry = Geometry(geometry.batch, geometry.groups, geometry.channels, geometry.filters, (row,))
        x = reshape(ctx.dense(x), (*x.shape[:2], row.input))

    def weight(k: KernelBuilder, output: Expr, channel: Expr, taps: Sequence[Expr]) -> Expr:
        return weights.reader(k, [output, channel, *taps, *[0] * (weights.rank - 2 - len(taps))])

    def place(index: Sequence[Expr]) -> list[Expr]:
        return unravel(index[0], spatial) if len(index) < len(spatial) else list(index)

    RowConvolutions(ctx, node, x, convolution.bias).emit([(geometry, weight, place)])


Place = Any
"""Maps the spatial index that a kernel computes to the one of the node's output."""


@dataclass(frozen=True)
class RowConvolutions:
    """Kernels with lanes along rows that together compute one node."""

    ctx: Lowering
    node: ir.Node
    input: Tensor
    bias: Tensor | None

    def emit(self, parts: Sequence[tuple[Geometry, Weight, Place]]) -> None:
        """Emit one kernel for all parts."""
        ctx, dtype = self.ctx, self.input.dtype
        accumulator = ACCUMULATORS.get(dtype, dtype)
        lanes = ctx.lanes * 4 // np.dtype(accumulator).itemsize
        bias = None if self.bias is None else ctx.strided(self.bias)
        sources = self._sources([geometry.axes[-1] for geometry, _, _ in parts])
        after = epilogue(ctx, self.node)
        out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
        with ctx.kernel("conv_rows") as k:
            if not after.hole.size:
                return
            for source, (geometry, weight, place) in zip(sources, parts, strict=True):

                def store(k: KernelBuilder, index: Sequence[Expr], value: Expr, place: Place = place) -> None:
                    n, channel, *spatial = index
                    after.store(k, out, [n, channel, *place(spatial)], cast(value, after.dtype))

                registers = REGISTERS[ctx.lanes]
                RowsKernel(geometry, source, weight, bias, lanes, registers, accumulator, store).emit(k)

    def _sources(self, axes: Sequence[Axis]) -> list[RowSource]:
        """The input as the rows of every part: in place where no part leaves the image or skips columns."""
        x = self.ctx.strided(self.input)
        layout = storage_of(x).layout
        assert isinstance(layout, Strided)
        if layout.strides[-1] == 1 and all(axis.stride == 1 and axis.is_inside for axis in axes):
            return [RowSource(axis, storage_of(x)) for axis in axes]
        rows = padded_rows(x.shape, axes)
        copy = self.ctx.buffer(rows.size, x.dtype)
        with self.ctx.kernel("pad_rows") as k:
            emit_padded_rows(k, x, rows, copy)
        return [rows.source(axis, copy) for axis in axes]


def as_images(weights: Tensor) -> Array:
    """Constant weights with two spatial axes."""
    assert weights.constant is not None
    array = weights.constant
    return array if array.ndim == 4 else array[:, :, None, :]


def constant_of(tensor: Tensor | None) -> Array | None:
    """The array of a constant, None where it is absent."""
    return None if tensor is None else tensor.constant


OPERATORS: dict[str, Operator] = {"Conv": Anchor(lower_conv)}

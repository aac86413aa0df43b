"""Conv: reads the node, and chooses the kernel by what is known of weights, groups and type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.conv import ConvKernel, pack_weights, pad_bias
from graphopt.backends.kernels.conv_grouped import (
    GroupedConvKernel,
    choose_grouped_tile,
    ungrouped,
    ungrouped_weights,
)
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.conv_shape import ConvShape, choose_tile, flatten_pointwise
from graphopt.backends.kernels.depthwise import DepthwiseKernel, pack_depthwise
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.kept import filter_sections, share_kept
from graphopt.backends.kernels.sparse_conv import SparseConvKernel
from graphopt.backends.kernels.winograd_rows import RowWinogradShape
from graphopt.backends.lower.channels import channel_blocks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.halves import Halves, halves_of, lower_half_conv, suits_pairs
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.row_convolutions import RowConvolutions
from graphopt.backends.lower.sparse import listed
from graphopt.backends.lower.views import reshape
from graphopt.backends.lower.windows import axes_of, window
from graphopt.backends.lower.winograd import (
    is_accurate,
    lower_row_winograd,
    lower_winograd,
    suits_row_winograd,
)
from graphopt.backends.schedules import conv, sparse
from graphopt.backends.schedules.workload import Config
from graphopt.backends.tensor import Tensor, unravel

FEW = 4
"""Filters of a group up to which lanes along rows beat a vector of output channels that is mostly empty."""

MOVING = 3
"""Cycles to move one element between rows and channel blocks."""

ELEMENTWISE = frozenset({"Add", "Clip", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid"})
"""Operators that become part of the kernels before them, and keep their layout."""

MANY_READS = 8
"""Vectors computed from one input element from which it pays to move the input into channel blocks."""

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

    def fills_vectors(self, node: ir.Node, lanes: int) -> bool:
        """Whether vectors of output channels take fewer cycles than vectors of columns."""
        geometry = self.geometry
        taps = math.prod(axis.kernel for axis in geometry.axes)
        columns = geometry.axes[-1].output
        if geometry.groups > 1:
            return geometry.filters > FEW
        reads = geometry.channels * taps
        along_channels = reads * -(-geometry.filters // lanes)
        along_rows = reads * geometry.filters / lanes * (-(-columns // lanes) * lanes / max(columns, 1))
        if self.input.block or taps == 1:
            return along_channels <= along_rows + MOVING * (geometry.channels + geometry.filters)
        leaving = 0 if are_read_by_narrow(node, lanes) else MOVING * geometry.filters
        return along_channels <= along_rows + leaving


def are_read_by_narrow(node: ir.Node, lanes: int) -> bool:
    """Whether most of what reads the results of a node, past elementwise operators, are convolutions that would leave half of every
    vector of output channels empty."""
    readers: list[ir.Node] = []
    seen, waiting = {node}, [node]
    while waiting:
        for reader in waiting.pop().outputs[0].consumers():
            if reader in seen:
                continue
            seen.add(reader)
            (waiting if reader.op_type in ELEMENTWISE else readers).append(reader)
    narrow = [reader for reader in readers if _is_narrow(reader, lanes)]
    return 2 * len(narrow) > len(readers)


def _is_narrow(node: ir.Node, lanes: int) -> bool:
    weights = node.inputs[1] if node.op_type == "Conv" and attribute(node, "group", 1) == 1 else None
    if weights is None:
        return False
    filters, _, *taps = shape_of(weights)
    return 2 * filters <= lanes and math.prod(taps) > 1


def lower_conv(ctx: Lowering, node: ir.Node) -> None:
    """Conv of any rank, type and number of groups; weights may be computed at run time."""
    x, weights, *rest = ctx.operands(node)
    assert x is not None
    assert weights is not None
    if x.rank < 3:
        raise Refused("its input has no spatial axes")
    axes = axes_of(node, x.shape[2:], shape_of(node.outputs[0])[2:], weights.shape[2:])
    groups = attribute(node, "group", 1)
    geometry = Geometry(x.shape[0], groups, weights.shape[1], weights.shape[0] // max(groups, 1), axes)
    convolution = Convolution(x, weights, rest[0] if rest else None, geometry)
    if (halves := _halves(ctx, node, convolution)) is not None:
        lower_half_conv(ctx, node, halves, constant_of(convolution.bias), direct_shape(geometry))
    elif ctx.lanes == 1:
        ctx.twin(lower_rows)(ctx, node, convolution)
    elif convolution.is_packable and convolution.is_depthwise:
        _depthwise(ctx, node, convolution)
    elif convolution.is_packable and convolution.fills_vectors(node, ctx.lanes):
        _direct(ctx, node, convolution)
    elif not (convolution.is_packable and _row_winograd(ctx, node, convolution)):
        lower_rows(ctx, node, convolution)


def _halves(ctx: Lowering, node: ir.Node, convolution: Convolution) -> Halves | None:
    """The operands of a convolution that the kernel of pairs computes."""
    if not convolution.is_packable or convolution.is_depthwise:
        return None
    if not suits_pairs(direct_shape(convolution.geometry), ctx.lanes):
        return None
    return halves_of(ctx, node, as_images(convolution.weights), filters=0)


def direct_shape(geometry: Geometry) -> ConvShape:
    """The shape of a convolution of one or two spatial axes."""
    return ConvShape(
        geometry.batch, geometry.groups, geometry.channels, geometry.filters, window(geometry.axes)
    )


def _depthwise(ctx: Lowering, node: ir.Node, convolution: Convolution) -> None:
    lanes, geometry = ctx.lanes, convolution.geometry
    source = channel_blocks(ctx, convolution.input)
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
    shape = flatten_pointwise(direct_shape(convolution.geometry))
    weights, bias = as_images(convolution.weights), constant_of(convolution.bias)
    config = _schedule(ctx, convolution, shape, weights)
    if config is not None and conv.is_winograd(config):
        chosen = conv.winograd_shape(shape, config, ctx.core)
        lower_winograd(ctx, node, convolution.input, weights, bias, chosen)
        return
    source = scalar_source(ctx, convolution.input, convolution.geometry)
    after = epilogue(ctx, node, lanes)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, lanes))
    shape, make = _direct_kernel(ctx, shape, weights, config)
    kernel = make(
        input=source,
        bias=None if bias is None else ctx.constant_buffer(pad_bias(bias, shape, lanes)),
        store=after.into(out),
    )
    with ctx.kernel("conv") as k:
        kernel.emit(k)


def _direct_kernel(
    ctx: Lowering, shape: ConvShape, weights: Array, config: Config | None
) -> tuple[ConvShape, Callable[..., ConvKernel]]:
    """The kernel, which lacks only input, bias and what to do with the results, and the shape that it computes."""
    lanes = ctx.lanes
    if config is not None and sparse.is_sparse(config):
        kept, values = listed(ctx, filter_sections(weights, shape.groups, lanes))
        tile = sparse.conv_tile(config)
        return shape, partial(SparseConvKernel, shape, tile, ctx.core, weights=values, kept=kept)
    make: Callable[..., ConvKernel] = ConvKernel
    tile = choose_tile(shape, ctx.core) if config is None else conv.direct_tile(config)
    if not shape.is_aligned(lanes):
        make, tile = partial(GroupedConvKernel, grouped=shape), choose_grouped_tile(shape, ctx.core)
        weights, shape = ungrouped_weights(weights, shape, lanes), ungrouped(shape, lanes)
    packed = ctx.constant_buffer(pack_weights(weights, shape, tile, lanes))
    return shape, partial(make, shape, tile, ctx.core, weights=packed)


def _schedule(ctx: Lowering, convolution: Convolution, shape: ConvShape, weights: Array) -> Config | None:
    """The schedule of an aligned convolution; Winograd's only where it is accurate. None for any other."""
    if not shape.is_aligned(ctx.lanes) or not shape.macs:
        return None

    accurate = cache(partial(is_accurate, weights))

    def usable(config: Config) -> bool:
        return not conv.is_winograd(config) or accurate(int(config["side"]))

    x = convolution.input
    blocked = x.block == ctx.lanes or _is_worth_moving(ctx, x, convolution.geometry)
    kept = share_kept(weights, partial(filter_sections, groups=shape.groups, lanes=ctx.lanes))
    return ctx.schedule(conv.workload(shape, blocked, kept), usable)


def scalar_source(ctx: Lowering, x: Tensor, geometry: Geometry) -> Tensor:
    """The input of a kernel that reads channel by channel: in blocks if it is read often enough to pay for moving it."""
    return channel_blocks(ctx, x) if _is_worth_moving(ctx, x, geometry) else ctx.in_memory(x)


def _is_worth_moving(ctx: Lowering, x: Tensor, geometry: Geometry) -> bool:
    taps = math.prod(axis.kernel / axis.stride for axis in geometry.axes)
    reads = taps * -(-geometry.filters // ctx.lanes)
    return x.shape[1] >= ctx.lanes // 2 and reads >= MANY_READS


def _row_winograd(ctx: Lowering, node: ir.Node, convolution: Convolution) -> bool:
    """Whether the convolution has been lowered by minimal filtering along rows."""
    shape = RowWinogradShape(direct_shape(convolution.geometry), ctx.core)
    weights = as_images(convolution.weights)
    if not suits_row_winograd(shape, weights):
        return False
    lower_row_winograd(ctx, node, convolution.input, weights, constant_of(convolution.bias), shape)
    return True


def lower_rows(ctx: Lowering, node: ir.Node, convolution: Convolution) -> None:
    """Kernels with lanes along rows, or without any."""
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

    ctx.twin(RowConvolutions)(ctx, node, x, convolution.bias).emit([(geometry, weight, place)])


def as_images(weights: Tensor) -> Array:
    """Constant weights with two spatial axes."""
    assert weights.constant is not None
    array = weights.constant
    return array if array.ndim == 4 else array[:, :, None, :]


def constant_of(tensor: Tensor | None) -> Array | None:
    """The array of a constant, None where it is absent."""
    return None if tensor is None else tensor.constant


OPERATORS: dict[str, Operator] = {"Conv": Anchor(lower_conv)}

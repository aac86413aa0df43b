"""Convolutions and matrix multiplications."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels import conv, gemm
from graphopt.backends.kernels.conv import ConvKernel, ConvShape
from graphopt.backends.kernels.depthwise import DepthwiseKernel, pack_depthwise
from graphopt.backends.kernels.gemm import GemmKernel
from graphopt.backends.kernels.window import Window
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, constant_input, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.windows import window_of
from graphopt.backends.tensor import Tensor


def lower_conv(ctx: Lowering, node: ir.Node) -> None:
    """Conv of one or two spatial dimensions with constant weights."""
    x = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    weights = constant_input(ctx, node, 1, "weight")
    bias = constant_input(ctx, node, 2, "bias")
    if weights is None or x.dtype != "float32" or x.rank > 4:
        raise Refused(f"Conv of rank {x.rank} and type {x.dtype} is not supported")
    groups = attribute(node, "group", 1)
    window = window_of(node, x.shape[2:], shape_of(node.outputs[0])[2:], weights.shape[2:])
    weights = weights.reshape(*weights.shape[:2], *window.kernel)
    shape = ConvShape(x.shape[0], groups, weights.shape[1], weights.shape[0] // groups, window)
    if groups == x.shape[1] and weights.shape[:2] == (groups, 1):
        _depthwise(ctx, node, x, weights, bias, window)
    else:
        _direct(ctx, node, x, weights, bias, shape)


def _depthwise(
    ctx: Lowering, node: ir.Node, x: Tensor, weights: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None, window: Window
) -> None:
    lanes = ctx.lanes
    source = ctx.blocked(x)
    after = epilogue(ctx, node, lanes)
    out = ctx.result(after.value, after.shape, after.result.dtype, lanes)
    padding = -x.shape[1] % lanes
    kernel = DepthwiseKernel(
        window,
        lanes,
        source,
        storage_of(out),
        weights=ctx.constant_buffer(pack_depthwise(weights, lanes)),
        bias=None if bias is None else ctx.constant_buffer(np.pad(bias, (0, padding))),
        epilogue=after,
    )
    with ctx.kernel("depthwise") as k:
        kernel.emit(k)


def _direct(
    ctx: Lowering, node: ir.Node, x: Tensor, weights: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None, shape: ConvShape
) -> None:
    lanes = ctx.lanes
    shape = conv.flatten_pointwise(shape)
    tile = conv.choose_tile(shape, lanes)
    block = lanes if shape.is_aligned(lanes) else 0
    source = ctx.in_memory(x)
    after = epilogue(ctx, node, block)
    out = ctx.result(after.value, after.shape, after.result.dtype, block)
    kernel = ConvKernel(
        shape,
        tile,
        lanes,
        source,
        weights=ctx.constant_buffer(conv.pack_weights(weights, shape, tile, lanes)),
        bias=None if bias is None else ctx.constant_buffer(conv.pad_bias(bias, shape, lanes)),
        epilogue=after,
        out=storage_of(out),
    )
    with ctx.kernel("conv") as k:
        kernel.emit(k)


def lower_matmul(ctx: Lowering, node: ir.Node) -> None:
    """MatMul by numpy's rules: one-dimensional operands gain an axis, leading axes broadcast."""
    left, right = (ctx.tensor(value) for value in node.inputs if value is not None)
    if left.dtype != "float32":
        raise Refused(f"MatMul of {left.dtype} is not supported")
    if left.rank < 2 or right.rank < 2:
        raise Refused("MatMul with a vector operand is not supported")
    _multiply(ctx, node, left, right)


def _multiply(ctx: Lowering, node: ir.Node, left: Tensor, right: Tensor) -> None:
    shape = shape_of(node.outputs[0])
    tile = gemm.choose_tile(shape[-2], shape[-1], ctx.lanes)
    panels: Buffer | None = None
    if right.constant is not None and right.rank == 2:
        panels = ctx.constant_buffer(gemm.pack_panels(right.constant, tile, ctx.lanes))
    else:
        right = _rows_in_memory(ctx, right)
    left = ctx.strided(left)
    after = epilogue(ctx, node)
    out = ctx.result(after.value, after.shape, after.result.dtype)
    kernel = GemmKernel(left, right, panels, tile, ctx.lanes, after, storage_of(out))
    with ctx.kernel("gemm") as k:
        kernel.emit(k)


def _rows_in_memory(ctx: Lowering, tensor: Tensor) -> Tensor:
    """The tensor with its last axis contiguous."""
    tensor = ctx.strided(tensor)
    strides = storage_of(tensor).layout.strides  # type: ignore[union-attr]
    return tensor if strides[-1] == 1 or tensor.shape[-1] == 1 else ctx.store(tensor)


OPERATORS: dict[str, Operator] = {
    "Conv": Anchor(lower_conv),
    "MatMul": Anchor(lower_matmul),
}

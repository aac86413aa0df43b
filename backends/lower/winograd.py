"""Chooses Winograd's algorithm for a convolution where it is estimated faster and its error has been found small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.conv import pad_bias
from graphopt.backends.kernels.conv_shape import ConvShape, direct_cycles
from graphopt.backends.kernels.registers import REGISTERS
from graphopt.backends.kernels.tile_cost import weights_cycles
from graphopt.backends.kernels.winograd import WinogradKernel, WinogradShape, applies, pack_winograd
from graphopt.backends.kernels.winograd_transforms import POINTS, relative_error, transforms
from graphopt.backends.lower.channels import channel_blocks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Tensor

LARGEST_ERROR = 1e-5
"""Error of a layer, relative to its largest result, up to which the algorithm is used."""

INPUT_TRANSFORM, OUTPUT_TRANSFORM = 5.0, 4.5
"""Cycles a vector and product of the transforms, measured on Zen 5."""


def choose_winograd(shape: ConvShape, weights: np.ndarray[Any, Any], lanes: int) -> WinogradShape | None:
    """The fastest variant whose error is small, or None where the direct convolution is estimated to be faster."""
    if not applies(shape):
        return None
    direct = direct_cycles(shape, lanes)
    variants = sorted((_variant(shape, side, lanes) for side in POINTS), key=_cycles)
    return next((v for v in variants if _cycles(v) < direct and _is_accurate(weights, v)), None)


def _variant(shape: ConvShape, side: int, lanes: int) -> WinogradShape:
    draft = WinogradShape(shape, transforms(side), gemm.GemmTile(1, 1), lanes)
    tile = gemm.choose_tile(draft.tiles, shape.filters, shape.channels, lanes, REGISTERS[lanes])
    return replace(draft, tile=tile)


def _cycles(shape: WinogradShape) -> float:
    """Estimated cycles on one core."""
    conv, channels = shape.conv, shape.channel_blocks * shape.lanes
    product = gemm.gemm_cycles(shape.tiles, conv.filters, channels, shape.tile, shape.lanes)
    moving = INPUT_TRANSFORM * shape.channel_blocks + OUTPUT_TRANSFORM * shape.filter_blocks
    weights = weights_cycles(shape.products * conv.filters * conv.channels)
    return shape.products * (product + shape.tiles * moving) + weights


def _is_accurate(weights: np.ndarray[Any, Any], shape: WinogradShape) -> bool:
    return relative_error(weights, shape.transforms.tile) <= LARGEST_ERROR


def lower_winograd(
    ctx: Lowering,
    node: ir.Node,
    x: Tensor,
    weights: np.ndarray[Any, Any],
    bias: np.ndarray[Any, Any] | None,
    shape: WinogradShape,
) -> None:
    """Emit the convolution with the elementwise operators that follow."""
    source = channel_blocks(ctx, x)
    after = epilogue(ctx, node, ctx.lanes)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, ctx.lanes))
    kernel = WinogradKernel(
        shape,
        source,
        ctx.constant_buffer(pack_winograd(weights, shape)),
        None if bias is None else ctx.constant_buffer(pad_bias(bias, shape.conv, ctx.lanes)),
        ctx.buffer(shape.workspace_size, "float32"),
        after.into(out),
    )
    with ctx.kernel("winograd") as k:
        kernel.emit(k)

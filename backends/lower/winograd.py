"""Lowers a convolution by Winograd's algorithm, where its error has been found small: in channel blocks, or along rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.kernels.conv import pad_bias
from graphopt.backends.kernels.winograd import WinogradKernel, WinogradShape, pack_winograd
from graphopt.backends.kernels.winograd_rows import (
    SIDE,
    RowWinogradKernel,
    RowWinogradShape,
    pack_row_winograd,
    row_winograd_pays,
)
from graphopt.backends.kernels.winograd_transforms import relative_error
from graphopt.backends.layout import Strided
from graphopt.backends.lower.channels import channel_blocks, channel_rows
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Tensor

LARGEST_ERROR = 1e-5
"""Error of a layer, relative to its largest result, up to which the algorithm is used."""


def is_accurate(weights: np.ndarray[Any, Any], side: int) -> bool:
    """Whether tiles of this side lose no more than `LARGEST_ERROR` with these weights."""
    return relative_error(weights, side) <= LARGEST_ERROR


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
        ctx.computed_buffer(pack_winograd(weights, shape)),
        None if bias is None else ctx.constant_buffer(pad_bias(bias, shape.conv, ctx.lanes)),
        ctx.buffer(shape.workspace_size, "float32"),
        after.into(out),
    )
    with ctx.kernel("winograd") as k:
        kernel.emit(k)


def suits_row_winograd(shape: RowWinogradShape, weights: np.ndarray[Any, Any]) -> bool:
    """Whether the kernel with lanes along rows is faster than a direct one, and accurate with these weights."""
    return row_winograd_pays(shape) and is_accurate(weights, SIDE)


def lower_row_winograd(
    ctx: Lowering,
    node: ir.Node,
    x: Tensor,
    weights: np.ndarray[Any, Any],
    bias: np.ndarray[Any, Any] | None,
    shape: RowWinogradShape,
) -> None:
    """Emit the convolution, lanes along rows, with the elementwise operators that follow."""
    source = channel_rows(ctx, x)
    layout = storage_of(source).layout
    assert isinstance(layout, Strided)
    if layout.strides[-1] != 1:
        source = ctx.dense(source)
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    kernel = RowWinogradKernel(
        shape,
        storage_of(source),
        ctx.constant_buffer(pack_row_winograd(weights)),
        None if bias is None else ctx.constant_buffer(bias),
        after.into(out),
    )
    with ctx.kernel("winograd_rows") as k:
        kernel.emit(k)

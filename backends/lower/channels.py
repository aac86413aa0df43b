"""The inputs of kernels that work on channel blocks, or on rows."""

from __future__ import annotations

from graphopt.backends.kernels.channels import emit_by_rows
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.tensor import Tensor


def channel_blocks(ctx: Lowering, tensor: Tensor) -> Tensor:
    """The tensor in channel blocks; what has another layout, or none of its own, is moved row by row."""
    if tensor.block or tensor.size == 0 or ctx.lanes == 1:
        return ctx.blocked(tensor)
    return _moved(ctx, tensor, ctx.lanes)


def channel_rows(ctx: Lowering, tensor: Tensor) -> Tensor:
    """The tensor with any strides; channel blocks are moved row by row."""
    return _moved(ctx, tensor, 0) if tensor.is_blocked and tensor.size else ctx.strided(tensor)


def _moved(ctx: Lowering, tensor: Tensor, block: int) -> Tensor:
    copy = ctx.new(tensor.shape, tensor.dtype, block)
    with ctx.kernel("to_blocks" if block else "to_rows") as k:
        emit_by_rows(k, tensor, storage_of(copy), ctx.lanes)
    return copy

"""Brings the operands of products into the form that a kernel reads."""

from __future__ import annotations

import numpy as np

from graphopt.backends.kernels.panels import Panels, emit_transposed_panels, pack_panels, panel_count
from graphopt.backends.layout import Strided, row_major_strides
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.views import transpose
from graphopt.backends.tensor import Tensor, strided_view


def columns_of(ctx: Lowering, right: Tensor, vectors: int, lanes: int) -> Tensor | Panels:
    """The right operand as vectors of columns: packed if it is constant or transposed, else in place."""
    depth, columns = right.shape[-2:]
    batch, count = right.shape[:-2], panel_count(columns, vectors, lanes)
    if right.constant is not None:
        buffer = ctx.constant_buffer(pack_panels(right.constant, vectors, lanes))
        return Panels(buffer, batch, count, depth, vectors, lanes)
    right = ctx.strided(right)
    if stride_of(right, -1) == 1 or columns == 1:
        return right
    if stride_of(right, -2) != 1:
        return ctx.store(right)
    packed = ctx.buffer(int(np.prod(batch)) * count * depth * vectors * lanes, right.dtype)
    panels = Panels(packed, batch, count, depth, vectors, lanes)
    with ctx.kernel("pack") as k:
        emit_transposed_panels(k, right, panels)
    return panels


def along_depth(ctx: Lowering, tensor: Tensor, axis: int) -> Tensor:
    """The operand in memory with its summed axis contiguous."""
    tensor = _strided_constant(ctx, tensor, axis)
    if stride_of(tensor, axis) == 1 or tensor.shape[axis] == 1:
        return tensor
    if axis == -1:
        return ctx.store(tensor)
    return _swapped(ctx.store(_swapped(tensor)))


def _strided_constant(ctx: Lowering, tensor: Tensor, axis: int) -> Tensor:
    """`ctx.strided`, a constant being laid out with `axis` innermost at compile time."""
    if tensor.constant is None or axis == -1:
        return ctx.strided(tensor)
    return _swapped(ctx.strided(ctx.constant(np.ascontiguousarray(tensor.constant.swapaxes(-1, -2)))))


def with_shape(ctx: Lowering, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor with axes of extent 1 added or removed."""
    if tensor.constant is not None:
        return ctx.constant(tensor.constant.reshape(shape))
    tensor = ctx.strided(tensor)
    layout = storage_of(tensor).layout
    assert isinstance(layout, Strided)
    strides = iter(s for s, extent in zip(layout.strides, tensor.shape, strict=True) if extent != 1)
    return strided_view(
        tensor, shape, [0 if extent == 1 else next(strides) for extent in shape], layout.offset
    )


def transposed(ctx: Lowering, matrix: Tensor) -> Tensor:
    return transpose(matrix, (1, 0)) if matrix.constant is None else ctx.constant(matrix.constant.T)


def _swapped(tensor: Tensor) -> Tensor:
    order = list(range(tensor.rank))
    order[-2:] = [tensor.rank - 1, tensor.rank - 2]
    return transpose(tensor, order)


def stride_of(tensor: Tensor, axis: int) -> int | None:
    """The stride of an axis of a tensor in memory or constant; None for one that is not strided."""
    if tensor.constant is not None:
        return row_major_strides(tensor.shape)[axis]
    layout = tensor.storage.layout if tensor.storage is not None else None
    return layout.strides[axis] if isinstance(layout, Strided) else None

"""Operators that only move elements: views where strides allow, otherwise an index mapping applied where it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.layout import Blocked, ChannelsLast, Strided, row_major_strides, whole_chunks
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import (
    Lowered,
    Operator,
    attribute,
    constant_input,
    dtype_of_value,
    shape_of,
)
from graphopt.backends.tensor import Index, Tensor, broadcast_index, lazy, stored, strided_view, unravel


def first_input(ctx: Lowering, node: ir.Node) -> Tensor:
    """The tensor of a node's first input."""
    assert node.inputs[0] is not None
    return ctx.tensor(node.inputs[0])


def strided_layout(tensor: Tensor) -> Strided | None:
    """The strided layout it is stored in, if it is."""
    layout = tensor.storage.layout if tensor.storage is not None else None
    return layout if isinstance(layout, Strided) else None


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x` with another shape of the same size: an alias where strides allow, else an index mapping."""
    layout = strided_layout(x)
    if layout is not None and (view := layout.reshaped(x.shape, shape)) is not None:
        return strided_view(x, shape, view.strides, view.offset)

    def read(k: KernelBuilder, index: Index) -> Expr:
        position: Expr = 0
        for i, stride in zip(index, row_major_strides(shape), strict=True):
            position = position + i * stride
        return x.read(k, unravel(position, x.shape))

    return lazy(shape, x.dtype, read, x.cost)


def _reshape(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = first_input(ctx, node)
    shape = shape_of(node.outputs[0])
    return [ctx.constant(x.constant.reshape(shape)) if x.constant is not None else reshape(x, shape)]


def transpose(x: Tensor, order: Sequence[int]) -> Tensor:
    """`x` with its axes in another order."""
    shape = [x.shape[axis] for axis in order]
    layout = strided_layout(x)
    if layout is not None:
        return strided_view(x, shape, [layout.strides[axis] for axis in order], layout.offset)

    def read(k: KernelBuilder, index: Index) -> Expr:
        source: list[Any] = [0] * x.rank
        for position, axis in enumerate(order):
            source[axis] = index[position]
        return x.read(k, source)

    return lazy(shape, x.dtype, read, x.cost)


def _transpose(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = first_input(ctx, node)
    return [transpose(x, attribute(node, "perm", list(reversed(range(x.rank)))))]


def crop(x: Tensor, starts: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Every `steps`-th element from `starts`, `shape` of them; steps may be negative."""
    layout = strided_layout(x)
    if layout is not None:
        offset = layout.offset + sum(
            start * stride for start, stride in zip(starts, layout.strides, strict=True)
        )
        strides = [stride * step for stride, step in zip(layout.strides, steps, strict=True)]
        return strided_view(x, shape, strides, offset)
    if _is_whole_blocks(x, starts, steps, shape):
        assert x.storage is not None
        assert isinstance(x.storage.layout, Blocked)
        return stored(x.storage.buffer, shape, x.storage.layout.part(tuple(shape), starts[1]), x.dtype)

    def read(k: KernelBuilder, index: Index) -> Expr:
        return x.read(k, [i * step + start for i, step, start in zip(index, steps, starts, strict=True)])

    block = x.block if x.rank > 2 and (starts[1], steps[1]) == (0, 1) else 0
    return lazy(shape, x.dtype, read, x.cost, block)


def _is_whole_blocks(x: Tensor, starts: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a part of a blocked tensor is a run of its channel blocks, all of their lanes in use, or any of its channels where a
    block holds all."""
    layout = x.storage.layout if x.storage is not None else None
    if not isinstance(layout, Blocked):
        return False
    elsewhere = [axis for axis in range(x.rank) if axis != 1]
    if steps[1] != 1 or any(shape[axis] != x.shape[axis] or steps[axis] != 1 for axis in elsewhere):
        return False
    if isinstance(layout, ChannelsLast):
        return True
    return starts[1] % layout.block == 0 and (
        shape[1] % layout.block == 0 or starts[1] + shape[1] == x.shape[1]
    )


def _slice(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = first_input(ctx, node)
    if "starts" in node.attributes:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        axes, steps = attribute(node, "axes"), None
    else:
        names = ("starts", "ends", "axes", "steps")
        starts, ends, axes, steps = (constant_input(ctx, node, i + 1, name) for i, name in enumerate(names))
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    begin, stride, shape = [0] * x.rank, [1] * x.rank, list(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(x.shape[axis])[
            slice(int(start), _slice_end(int(end), int(step), x.shape[axis]), int(step))
        ]
        begin[axis], stride[axis], shape[axis] = taken.start, taken.step, len(taken)
    return [crop(x, begin, stride, shape)]


def _slice_end(end: int, step: int, extent: int) -> int | None:
    """Python's slice end: ONNX writes "before the first element" as a number below -extent."""
    return None if step < 0 and end < -extent else end


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x` broadcast to `shape` by numpy's rules."""
    layout = strided_layout(x)
    if layout is not None:
        added = len(shape) - x.rank
        strides = [0] * added + [0 if d == 1 else s for d, s in zip(x.shape, layout.strides, strict=True)]
        return strided_view(x, shape, strides, layout.offset)
    return lazy(shape, x.dtype, lambda k, index: x.read(k, broadcast_index(index, x.shape)), x.cost)


def _expand(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = ctx.cheap(first_input(ctx, node))
    return [expand(x, shape_of(node.outputs[0]))]


def _concat(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Each part is computed straight into its place, unless the kernel that made it has put it there already."""
    parts = [ctx.tensor(value) for value in node.inputs if value is not None]
    parts = [part for part in parts if part.size] or parts[:1]
    value = node.outputs[0]
    axis = attribute(node, "axis") % parts[0].rank
    block = _block_of_concat(ctx, value, parts) if axis == 1 else 0
    out = ctx.result(value, shape_of(value), parts[0].dtype, block)
    start = 0
    for part in parts:
        place = ctx.part(out, axis, start, part.shape)
        if part.storage != place.storage:
            ctx.copy(part, place)
        start += part.shape[axis]
    return [None]


def _block_of_concat(ctx: Lowering, value: ir.Value, parts: Sequence[Tensor]) -> int:
    """In which blocks channels are best put together."""
    if ctx.lanes == 1:
        together = all(part.block > 1 for part in parts)
        return whole_chunks(sum(part.shape[1] for part in parts)) if together else 0
    aligned = all(part.shape[1] % ctx.lanes == 0 for part in parts)
    blocked = aligned and (all(part.block for part in parts) or _feeds_convolutions(value))
    return ctx.lanes if blocked or value in ctx.wholes else 0


def _feeds_convolutions(value: ir.Value) -> bool:
    """Whether all that reads a value are convolutions, which want their channels in blocks."""
    readers = [(user.op_type, user.domain, position) for user, position in value.uses()]
    return (
        dtype_of_value(value) == "float32"
        and not value.is_graph_output()
        and set(readers) == {("Conv", "", 0)}
    )


def pad(
    x: Tensor, before: Sequence[int], shape: Sequence[int], fill: Callable[[KernelBuilder], Expr]
) -> Tensor:
    """`x` with `before` elements of `fill` in front of every axis, and behind it up to `shape`."""

    def read(k: KernelBuilder, index: Index) -> Expr:
        source = [i - start for i, start in zip(index, before, strict=True)]
        conditions = []
        for i, start, extent, padded in zip(source, before, x.shape, shape, strict=True):
            if start > 0:
                conditions.append(tirx.GE(i, 0))
            if padded - start > extent:
                conditions.append(tirx.LT(i, extent))
        if not conditions:
            return x.read(k, source)
        return k.guard(tirx.op.all(*conditions), lambda: x.read(k, source), fill(k))

    return lazy(shape, x.dtype, read, x.cost + 2, _spatial_block(x, shape))


def _spatial_block(x: Tensor, shape: Sequence[int]) -> int:
    """The block of `x` if padding to `shape` leaves its channels alone."""
    return x.block if x.rank > 2 and shape[1] == x.shape[1] else 0


def _pad(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """Negative padding removes elements first."""
    x = ctx.cheap(first_input(ctx, node))
    pads = attribute(node, "pads", attribute(node, "paddings"))
    pads = constant_input(ctx, node, 1, "pads") if pads is None else pads
    axes = constant_input(ctx, node, 3, "axes")
    axes = list(range(x.rank)) if axes is None else [int(axis) % x.rank for axis in axes]
    before, after = [0] * x.rank, [0] * x.rank
    for axis, front, behind in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        before[axis], after[axis] = int(front), int(behind)
    if min(*before, *after, 0) < 0:
        x = _trimmed(x, before, after)
        before = [max(amount, 0) for amount in before]
    shape = shape_of(node.outputs[0])
    mode = attribute(node, "mode", "constant")
    if mode == "constant":
        fill = _fill_value(ctx, node, x.dtype)
        return [pad(x, before, shape, lambda k: fill.read(k, [0] * fill.rank))]

    def read(k: KernelBuilder, index: Index) -> Expr:
        places = zip(index, x.shape, before, shape, strict=True)
        return x.read(
            k,
            [
                PAD_MODES[mode](k, i - start, extent, _turns(start, extent, padded))
                if padded != extent
                else i
                for i, extent, start, padded in places
            ],
        )

    return [lazy(shape, x.dtype, read, x.cost + 2, _spatial_block(x, shape))]


def _turns(before: int, extent: int, padded: int) -> int:
    """How often a padding of this length goes around an axis."""
    return -(-max(before, padded - before - extent) // max(extent - 1, 1))


def _trimmed(x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    starts = [max(-amount, 0) for amount in before]
    kept = [d - start - max(-amount, 0) for d, start, amount in zip(x.shape, starts, after, strict=True)]
    return crop(x, starts, [1] * x.rank, kept)


def _fill_value(ctx: Lowering, node: ir.Node, dtype: str) -> Tensor:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return ctx.tensor(node.inputs[2])
    value = attribute(node, "value", 0.0)
    return lazy((), dtype, lambda k, index: const(value, dtype))


def _edge(k: KernelBuilder, i: Expr, extent: int, turns: int) -> Expr:
    return tirx.op.max(const(0, "int32"), tirx.op.min(i, const(extent - 1, "int32")))


def _reflect(k: KernelBuilder, i: Expr, extent: int, turns: int) -> Expr:
    """Folded back at both ends as often as the padding is longer than the axis."""
    if extent == 1:
        return 0
    for _ in range(turns):
        i = k.bind(tirx.Select(i < 0, -i, tirx.Select(i < extent, i, 2 * (extent - 1) - i)))
    return i


def _wrap(k: KernelBuilder, i: Expr, extent: int, turns: int) -> Expr:
    return (i + turns * extent) % extent


PAD_MODES = {"edge": _edge, "reflect": _reflect, "wrap": _wrap}

OPERATORS: dict[str, Operator] = {
    "Reshape": Lowered(_reshape),
    "Flatten": Lowered(_reshape),
    "Squeeze": Lowered(_reshape),
    "Unsqueeze": Lowered(_reshape),
    "Transpose": Lowered(_transpose),
    "Slice": Lowered(_slice),
    "Expand": Lowered(_expand),
    "Concat": Lowered(_concat),
    "Pad": Lowered(_pad),
}

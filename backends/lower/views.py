"""Operators that only move elements: views where strides allow, otherwise an index mapping applied where it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.layout import Strided, row_major_strides
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
    """`x` with another shape of the same size: an alias of dense memory, else an index mapping."""
    layout = strided_layout(x)
    if layout is not None and layout.is_dense(x.shape):
        assert x.storage is not None
        return stored(x.storage.buffer, shape, Strided(row_major_strides(shape), layout.offset), x.dtype)

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
        offset = layout.offset + sum(start * stride for start, stride in zip(starts, layout.strides, strict=True))
        strides = [stride * step for stride, step in zip(layout.strides, steps, strict=True)]
        return strided_view(x, shape, strides, offset)

    def read(k: KernelBuilder, index: Index) -> Expr:
        return x.read(k, [i * step + start for i, step, start in zip(index, steps, starts, strict=True)])

    block = x.block if x.rank > 2 and (starts[1], steps[1]) == (0, 1) else 0
    return lazy(shape, x.dtype, read, x.cost, block)


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
        taken = range(x.shape[axis])[slice(int(start), _slice_end(int(end), int(step), x.shape[axis]), int(step))]
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
    """Each part is computed straight into its place."""
    parts = [ctx.tensor(value) for value in node.inputs if value is not None]
    parts = [part for part in parts if part.size] or parts[:1]
    axis = attribute(node, "axis") % parts[0].rank
    blocked = axis == 1 and all(p.block and p.shape[1] % p.block == 0 for p in parts)
    out = ctx.result(node.outputs[0], shape_of(node.outputs[0]), parts[0].dtype, ctx.lanes if blocked else 0)
    start = 0
    for part in parts:
        ctx.copy(part, ctx.part(out, axis, start, part.shape))
        start += part.shape[axis]
    return [None]


def _split(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = first_input(ctx, node)
    axis = attribute(node, "axis", 0) % x.rank
    pieces, start = [], 0
    for value in node.outputs:
        shape = shape_of(value)
        starts = [0] * x.rank
        starts[axis] = start
        pieces.append(crop(x, starts, [1] * x.rank, shape))
        start += shape[axis]
    return pieces


def _gather(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = ctx.cheap(first_input(ctx, node))
    assert node.inputs[1] is not None
    indices = ctx.cheap(ctx.tensor(node.inputs[1]))
    axis = attribute(node, "axis", 0) % x.rank
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    def read(k: KernelBuilder, index: Index) -> Expr:
        at = wrap_index(k, indices.read(k, index[axis : axis + indices.rank]), x.shape[axis])
        return x.read(k, [*index[:axis], at, *index[axis + indices.rank :]])

    return [lazy(shape, x.dtype, read, x.cost + 1)]


def wrap_index(k: KernelBuilder, index: Expr, extent: int) -> Expr:
    """A run-time index as int32, negative ones counted from the end, kept within bounds."""
    index = k.bind(cast(index, "int32"))
    wrapped = tirx.Select(index < 0, index + extent, index)
    return k.bind(tirx.op.max(const(0, "int32"), tirx.op.min(wrapped, const(extent - 1, "int32"))))


def _constant_of_shape(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    value = attribute(node, "value")
    item = 0.0 if value is None else value.reshape(-1)[0].item()
    dtype = dtype_of_value(node.outputs[0])
    return [lazy(shape_of(node.outputs[0]), dtype, lambda k, index: const(item, dtype))]


def _pad(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = ctx.cheap(first_input(ctx, node))
    pads = attribute(node, "pads") if "pads" in node.attributes else constant_input(ctx, node, 1, "pads")
    axes = constant_input(ctx, node, 3, "axes")
    axes = list(range(x.rank)) if axes is None else [int(axis) % x.rank for axis in axes]
    before = [0] * x.rank
    for axis, amount in zip(axes, pads[: len(axes)], strict=True):
        before[axis] = int(amount)
    shape = shape_of(node.outputs[0])
    mode = attribute(node, "mode", "constant")
    fill = _fill_value(ctx, node, x.dtype)

    def read(k: KernelBuilder, index: Index) -> Expr:
        source = [i - start for i, start in zip(index, before, strict=True)]
        if mode != "constant":
            return x.read(k, [PAD_MODES[mode](k, i, extent) for i, extent in zip(source, x.shape, strict=True)])
        conditions = []
        for i, start, extent, padded in zip(source, before, x.shape, shape, strict=True):
            if start > 0:
                conditions.append(tirx.GE(i, 0))
            if padded - start > extent:
                conditions.append(tirx.LT(i, extent))
        if not conditions:
            return x.read(k, source)
        return k.guard(tirx.op.all(*conditions), lambda: x.read(k, source), fill.read(k, [0] * fill.rank))

    block = x.block if x.rank > 2 and shape[1] == x.shape[1] else 0
    return [lazy(shape, x.dtype, read, x.cost + 2, block)]


def _fill_value(ctx: Lowering, node: ir.Node, dtype: str) -> Tensor:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return ctx.tensor(node.inputs[2])
    value = attribute(node, "value", 0.0)
    return lazy((), dtype, lambda k, index: const(value, dtype))


def _edge(k: KernelBuilder, i: Expr, extent: int) -> Expr:
    return tirx.op.max(const(0, "int32"), tirx.op.min(i, const(extent - 1, "int32")))


def _reflect(k: KernelBuilder, i: Expr, extent: int) -> Expr:
    if extent == 1:
        return 0
    period = 2 * (extent - 1)
    folded = k.bind(tirx.op.floormod(i, period))
    return tirx.op.min(folded, period - folded)


def _wrap(k: KernelBuilder, i: Expr, extent: int) -> Expr:
    return tirx.op.floormod(i, extent)


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
    "Split": Lowered(_split),
    "Gather": Lowered(_gather),
    "ConstantOfShape": Lowered(_constant_of_shape),
    "Pad": Lowered(_pad),
}

"""Operators that rearrange, repeat, mask or generate elements by a fixed rule of their position."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import (
    Lowered,
    Operator,
    attribute,
    constant_input,
    dtype_of_value,
    shape_of,
)
from graphopt.backends.lower.views import crop, first_input, pad
from graphopt.backends.tensor import Index, Tensor, lazy


def _depth_to_space(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """Channels become pixels of a `blocksize` square; DCR keeps the channel innermost, CRD outermost."""
    x = ctx.cheap(first_input(ctx, node))
    size = attribute(node, "blocksize")
    shape = shape_of(node.outputs[0])
    row_major = attribute(node, "mode", "DCR") == "CRD"

    def read(k: KernelBuilder, index: Index) -> Expr:
        n, channel, y, column = index
        pixel = _mod(y, size) * size + _mod(column, size)
        depth = channel * (size * size) + pixel if row_major else pixel * shape[1] + channel
        return x.read(k, [n, depth, _div(y, size), _div(column, size)])

    return [lazy(shape, x.dtype, read, x.cost)]


def _space_to_depth(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = ctx.cheap(first_input(ctx, node))
    size = attribute(node, "blocksize")
    channels, pixels = x.shape[1], size * size
    row_major = attribute(node, "mode", "DCR") == "CRD"

    def read(k: KernelBuilder, index: Index) -> Expr:
        n, depth, y, column = index
        pixel = _mod(depth, pixels) if row_major else _div(depth, channels)
        channel = _div(depth, pixels) if row_major else _mod(depth, channels)
        return x.read(k, [n, channel, y * size + _div(pixel, size), column * size + _mod(pixel, size)])

    return [lazy(shape_of(node.outputs[0]), x.dtype, read, x.cost)]


def _div(value: Expr, divisor: int) -> Expr:
    return value // divisor if isinstance(value, int) else tirx.op.floordiv(value, divisor)


def _mod(value: Expr, divisor: int) -> Expr:
    return value % divisor if isinstance(value, int) else tirx.op.floormod(value, divisor)


def _tile(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = ctx.cheap(first_input(ctx, node))

    def read(k: KernelBuilder, index: Index) -> Expr:
        return x.read(k, [0 if d == 1 else _mod(i, d) for i, d in zip(index, x.shape, strict=True)])

    return [lazy(shape_of(node.outputs[0]), x.dtype, read, x.cost)]


def _reverse_sequence(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The first `sequence_lens` elements of every batch entry in reverse order, the rest unchanged."""
    x = ctx.cheap(first_input(ctx, node))
    lengths = ctx.tensor(node.inputs[1])  # type: ignore[arg-type]
    time, batch = attribute(node, "time_axis", 0), attribute(node, "batch_axis", 1)

    def read(k: KernelBuilder, index: Index) -> Expr:
        length = k.bind(cast(lengths.read(k, [index[batch]]), "int32"))
        source = list(index)
        reversed_ = tirx.op.min(length, const(x.shape[time], "int32")) - 1 - index[time]
        source[time] = k.bind(tirx.Select(index[time] < length, tirx.op.max(reversed_, 0), index[time]))
        return x.read(k, source)

    return [lazy(x.shape, x.dtype, read, x.cost + 2)]


def _trilu(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The triangle above (or below) diagonal `k`, zeros elsewhere."""
    x = first_input(ctx, node)
    diagonal = ctx.tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    compare = tirx.GE if attribute(node, "upper", 1) else tirx.LE

    def read(k: KernelBuilder, index: Index) -> Expr:
        shift = const(0, "int64") if diagonal is None else diagonal.read(k, [0] * diagonal.rank)
        distance = cast(_expr(index[-1]) - _expr(index[-2]), "int64")
        return tirx.Select(compare(distance, shift), x.read(k, index), const(0, x.dtype))

    return [lazy(x.shape, x.dtype, read, x.cost + 2)]


def _eye_like(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    shape, dtype = shape_of(node.outputs[0]), dtype_of_value(node.outputs[0])
    diagonal = attribute(node, "k", 0)

    def read(k: KernelBuilder, index: Index) -> Expr:
        on = tirx.EQ(_expr(index[1]) - _expr(index[0]), const(diagonal, "int32"))
        return tirx.Select(on, const(1, dtype), const(0, dtype))

    return [lazy(shape, dtype, read)]


def _range(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """`start + i * delta`; how many must be known at compile time."""
    start, _, delta = (ctx.tensor(value) for value in node.inputs if value is not None)

    def read(k: KernelBuilder, index: Index) -> Expr:
        first, step = (t.read(k, [0] * t.rank) for t in (start, delta))
        return first + cast(_expr(index[0]), start.dtype) * step

    return [lazy(shape_of(node.outputs[0]), start.dtype, read, 2)]


def _expr(index: Expr) -> Expr:
    return const(index, "int32") if isinstance(index, int) else index


def _constant_of_shape(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    value = attribute(node, "value")
    item = 0.0 if value is None else value.reshape(-1)[0].item()
    dtype = dtype_of_value(node.outputs[0])
    return [lazy(shape_of(node.outputs[0]), dtype, lambda k, index: const(item, dtype))]


def _shape(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    shape = first_input(ctx, node).shape
    chosen = shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
    return [ctx.constant(np.array(chosen, np.int64))]


def _size(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    return [ctx.constant(np.array(first_input(ctx, node).size, np.int64))]


def _split(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The sizes are those that shape inference found, whatever the opset says them with."""
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


def _center_crop_pad(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """Axes too long lose elements at both ends, axes too short gain zeros; an odd one goes to the end."""
    x = ctx.cheap(first_input(ctx, node))
    axes = [axis % x.rank for axis in attribute(node, "axes", list(range(x.rank)))]
    wanted = list(x.shape)
    for axis, extent in zip(axes, constant_input(ctx, node, 1, "shape"), strict=True):
        wanted[axis] = int(extent)
    pairs = list(zip(x.shape, wanted, strict=True))
    kept = [min(old, new) for old, new in pairs]
    cropped = crop(x, [max(old - new, 0) // 2 for old, new in pairs], [1] * x.rank, kept)
    before = [max(new - old, 0) // 2 for old, new in pairs]
    return [pad(cropped, before, wanted, lambda k: const(0, x.dtype))]


def _col2im(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Every output element sums the columns' entries that the window at any position takes from it."""
    x = ctx.in_memory(first_input(ctx, node))
    image = [int(d) for d in constant_input(ctx, node, 1, "image shape")]
    block = [int(d) for d in constant_input(ctx, node, 2, "block shape")]
    rank = len(image)
    dilations = attribute(node, "dilations", [1] * rank)
    strides = attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * (2 * rank))
    extents = [
        (d + pads[a] + pads[rank + a] - dilations[a] * (block[a] - 1) - 1) // strides[a] + 1
        for a, d in enumerate(image)
    ]
    out = ctx.result(node.outputs[0], shape_of(node.outputs[0]), x.dtype)
    storage = storage_of(out)
    with ctx.kernel("col2im") as k, k.loop(out.size, "parallel", "element") as element:
        index = [k.bind(i) for i in split_index(element, out.shape)]
        total = k.local(1, x.dtype)
        k.assign(total, 0, const(0, x.dtype))
        with k.loop(math.prod(block), "serial", "tap") as tap:
            taps = split_index(tap, block)
            corner = [k.bind(i + pads[a] - taps[a] * dilations[a]) for a, i in enumerate(index[2:])]
            place = [k.bind(_div(c, strides[a])) for a, c in enumerate(corner)]
            inside = [tirx.EQ(_mod(c, strides[a]), 0) for a, c in enumerate(corner) if strides[a] > 1]
            inside += [c for i, d in zip(place, extents, strict=True) for c in (tirx.GE(i, 0), tirx.LT(i, d))]
            with k.when(tirx.op.all(*inside)):
                source = [index[0], index[1] * math.prod(block) + tap, _ravel(place, extents)]
                k.assign(total, 0, total[0] + x.reader(k, source))
        k.store(storage.buffer, storage.layout.position(index), total[0])
    return [None]


def _ravel(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    position: Expr = 0
    for i, extent in zip(index, shape, strict=True):
        position = position * extent + i
    return position


_LOWERINGS: dict[str, Callable[[Lowering, ir.Node], Sequence[Tensor | None]]] = {
    "CenterCropPad": _center_crop_pad,
    "Col2Im": _col2im,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "EyeLike": _eye_like,
    "Range": _range,
    "ReverseSequence": _reverse_sequence,
    "Shape": _shape,
    "Size": _size,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Tile": _tile,
    "Trilu": _trilu,
}

OPERATORS: dict[str, Operator] = {name: Lowered(lower) for name, lower in _LOWERINGS.items()}

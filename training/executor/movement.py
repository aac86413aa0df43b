"""Operators that move elements: shapes, orders, parts and borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always, integers, require
from graphopt.training.executor.windows import for_torch


def _reshape(node: Node) -> Compute:
    """0 keeps a dimension, unless `allowzero` says that it is one of no elements."""
    keeps = not node.get("allowzero", 0)

    def reshape(x: Tensor, shape: Tensor) -> Tensor:
        sizes = integers(shape)
        return x.reshape([x.shape[i] if size == 0 and keeps else size for i, size in enumerate(sizes)])

    return reshape


def _flatten(node: Node) -> Compute:
    axis = node.get("axis", 1)

    def flatten(x: Tensor) -> Tensor:
        split = axis if axis >= 0 else axis + x.ndim
        return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))

    return flatten


def _transpose(node: Node) -> Compute:
    order = node.get("perm")
    return lambda x: x.permute(*(order or range(x.ndim - 1, -1, -1)))


def _squeeze(node: Node) -> Compute:
    fixed = node.get("axes")

    def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = fixed if axes is None else integers(axes)
        return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))

    return squeeze


def _unsqueeze(node: Node) -> Compute:
    fixed = node.get("axes")

    def unsqueeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = fixed if axes is None else integers(axes)
        rank = x.ndim + len(chosen)
        for axis in sorted(each % rank for each in chosen):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _concat(node: Node) -> Compute:
    axis = node.get("axis")
    return lambda *parts: torch.cat(parts, axis)


def _split(node: Node) -> Compute:
    axis, fixed, count = node.get("axis", 0), node.get("split"), node.outputs

    def split(x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
        if sizes is not None or fixed is not None:
            return list(torch.split(x, list(fixed) if sizes is None else integers(sizes), axis))
        extent = x.shape[axis]
        each = -(-extent // count)
        return list(torch.split(x, [max(min(each, extent - i * each), 0) for i in range(count)], axis))

    return split


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(integers(shape))))


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(integers(repeats))


def _slice(node: Node) -> Compute:
    """Bounds are attributes before opset 10, inputs since."""
    fixed = node.get("starts"), node.get("ends"), node.get("axes")

    def cut(x: Tensor, *bounds: Tensor | None) -> Tensor:
        given = [None if each is None else integers(each) for each in bounds] if bounds else [*fixed]
        starts, ends, axes, steps = [*given, None, None][:4]
        assert starts is not None
        assert ends is not None
        axes = list(range(len(starts)) if axes is None else axes)
        for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
            x = _part(x, axis, start, end, step)
        return x

    return cut


def _part(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """What Python would take of an axis; going backwards, an end before the first element is none."""
    extent = x.shape[axis]
    taken = range(*slice(start, None if step < 0 and end < -extent else end, step).indices(extent))
    if taken.step > 0:
        return x.movedim(axis, 0)[taken.start : taken.stop : taken.step].movedim(0, axis)
    return x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))


def _pad(node: Node) -> Compute:
    """Amounts are attributes before opset 11, inputs since; negative ones cut off."""
    mode, fixed, constant = node.get("mode", "constant"), node.get("pads"), node.get("value", 0.0)
    require(mode in BORDERS or mode == "constant", f"its mode is {mode!r}")

    def pad(
        x: Tensor, amounts: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
    ) -> Tensor:
        sides = list(fixed) if amounts is None else integers(amounts)
        chosen = range(x.ndim) if axes is None else integers(axes)
        half = len(sides) // 2
        padding = [(0, 0)] * x.ndim
        for axis, before, behind in zip(chosen, sides[:half], sides[half:], strict=True):
            padding[axis] = (before, behind)
        if mode == "constant":
            return functional.pad(x, for_torch(padding), value=constant if value is None else value.item())
        return _with_border(x, padding, BORDERS[mode])

    return pad


BORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "edge": lambda position, extent: position.clamp(0, extent - 1),
    "reflect": lambda position, extent: _reflected(position, max(extent - 1, 1)),
    "wrap": lambda position, extent: position % extent,
}
"""Which element of an axis stands at a position outside of it."""


def _reflected(position: Tensor, last: int) -> Tensor:
    return last - (position % (2 * last) - last).abs()


def _with_border(
    x: Tensor, padding: Sequence[tuple[int, int]], border: Callable[[Tensor, int], Tensor]
) -> Tensor:
    for axis, (before, behind) in enumerate(padding):
        if (before, behind) != (0, 0):
            extent = x.shape[axis]
            positions = torch.arange(-before, extent + behind, device=x.device)
            x = x.index_select(axis, border(positions, extent))
    return x


def _depth_to_space(node: Node) -> Compute:
    block, first = node.get("blocksize"), node.get("mode", "DCR") == "DCR"

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        depth = c // block**2
        blocks = (block, block, depth) if first else (depth, block, block)
        order = (0, 3, 4, 1, 5, 2) if first else (0, 1, 4, 2, 5, 3)
        return x.reshape(n, *blocks, h, w).permute(order).reshape(n, depth, h * block, w * block)

    return move


def _space_to_depth(node: Node) -> Compute:
    block = node.get("blocksize")

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * block**2, h // block, w // block)

    return move


def _shape(node: Node) -> Compute:
    part = slice(node.get("start", 0), node.get("end"))
    return lambda x: torch.tensor(list(x.shape)[part], dtype=torch.int64, device=x.device)


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def _constant_of_shape(node: Node) -> Compute:
    value = node.get("value", torch.zeros(1, dtype=node.single))
    return lambda shape: value.to(shape.device).reshape(()).expand(integers(shape)).clone()


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    ends = (each.item() for each in (start, limit, delta))
    return torch.arange(*ends, dtype=start.dtype, device=start.device)


OPERATORS: dict[str, Maker] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": always(_expand),
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": always(_range),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": always(_size),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": always(_tile),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

"""Operators that cut axes and put them together: Slice, Split, Gather, Concat, Pad, and images in depth or space."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Flow, dims, label, rank
from graphopt.passes.prune.labels import Block, along, covered
from graphopt.passes.prune.rules.rule import Removal, Rule, argument, combine, set_argument

Cut = tuple[int, int, int, int]
"""Axis, start, end and step."""


def slices(flow: Flow, node: ir.Node) -> None:
    """Labels are cut as elements are."""
    source = node.inputs[0]
    cuts = _cuts(node)
    if cuts is None:
        axes = argument(node, 3, "axes")
        flow.freeze(source, f"{label(node)} computes its places", axes)
        cuts = []
    found = []
    for block in _of_known_size(flow, node):
        touched = [cut for cut in cuts if block.shape[cut[0]] > 1]
        if any(step != 1 for *_, step in touched):
            flow.labels.freeze([block], f"{label(node)} takes steps")
        for axis, start, end, step in touched:
            block = block[(slice(None),) * axis + (slice(start, end if end >= 0 else None, step),)]
        found.append(block)
    flow.put(node.outputs[0], found)


def _of_known_size(flow: Flow, node: ir.Node) -> list[Block]:
    """The blocks of what a node reads; places along an axis of free size with which channels were joined are not known."""
    found = []
    for block in flow.blocks(node.inputs[0]):
        if all(isinstance(size, int) for size in _sizes(node.inputs[0], covered(block))):
            found.append(block)
        else:
            flow.labels.freeze([block], f"{label(node)} looks for it along an axis of free size")
    return found


def _sizes(value: ir.Value | None, axes: Sequence[int]) -> list[int | str | None]:
    sizes = dims(value)
    return [None if sizes is None else sizes[axis] for axis in axes]


def _cuts(node: ir.Node) -> list[Cut] | None:
    """What a Slice takes, starts and ends within bounds; None where that is not constant."""
    sizes = dims(node.inputs[0])
    starts, ends = argument(node, 1, "starts"), argument(node, 2, "ends")
    if sizes is None or starts is None or ends is None:
        return None
    axes = argument(node, 3, "axes") or list(range(len(starts)))
    steps = argument(node, 4) or [1] * len(starts)
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = sizes[axis]
        if isinstance(size, int):
            start, end, step = slice(start, end, step).indices(size)
        found.append((axis % len(sizes), start, end, step))
    return found


def _repair_slice(removal: Removal, node: ir.Node) -> None:
    cuts = _cuts(node)
    if cuts is None:
        return
    starts, ends = argument(node, 1, "starts"), argument(node, 2, "ends")
    assert starts is not None
    assert ends is not None
    changed = False
    for number, (axis, start, end, _) in enumerate(cuts):
        kept = removal.kept(node.inputs[0], axis)
        if kept is not None:
            starts[number], ends[number] = int(kept[:start].sum()), int(kept[:end].sum())
            changed = True
    if changed:
        set_argument(removal, node, 1, "starts", starts)
        set_argument(removal, node, 2, "ends", ends)


def split(flow: Flow, node: ir.Node) -> None:
    """Labels are split as elements are."""
    source = node.inputs[0]
    width = rank(source)
    if width is None:
        flow.freeze(source, f"the rank of what {label(node)} reads is not known")
        return
    axis = (attribute(node, "axis") or 0) % width
    sizes = [None if each.shape is None else each.shape[axis] for each in node.outputs]
    whole = all(isinstance(size, int) for size in sizes)
    for block in flow.blocks(source):
        if block.shape[axis] > 1 and not whole:
            flow.labels.freeze([block], f"{label(node)} computes its sizes")
    places = [0, *accumulate(size for size in sizes if isinstance(size, int))] if whole else []
    for number, output in enumerate(node.outputs):
        flow.put(
            output,
            [
                block
                if block.shape[axis] == 1
                else block[(slice(None),) * axis + (slice(places[number], places[number + 1]),)]
                for block in flow.blocks(source)
                if whole or block.shape[axis] == 1
            ],
        )


def _repair_split(removal: Removal, node: ir.Node) -> None:
    axis = attribute(node, "axis") or 0
    kept = removal.kept(node.inputs[0], axis)
    if kept is None:
        return
    sizes = [int(each.shape[axis]) for each in node.outputs if each.shape is not None]  # type: ignore[arg-type]
    places = [0, *accumulate(sizes)]
    now = [int(kept[start:end].sum()) for start, end in pairwise(places)]
    node.attributes.pop("num_outputs", None)
    if len(node.inputs) < 2 and "split" not in node.attributes:
        node.resize_inputs(2)
    set_argument(removal, node, 1, "split", now)


def gather(flow: Flow, node: ir.Node) -> None:
    """Constant indices take labels; indices that are computed may be any."""
    source, chosen, output = node.inputs[0], node.inputs[1], node.outputs[0]
    width, wide, indices = rank(source), rank(chosen), edit.constant(chosen)
    if width is None or wide is None:
        flow.freeze(source, f"the rank of what {label(node)} reads is not known")
        return
    axis = (attribute(node, "axis") or 0) % width
    if indices is None:
        flow.freeze(source, f"{label(node)} computes its indices", [axis])
    elif indices.ndim > 1:
        flow.freeze(source, f"{label(node)} needs all that it takes", [axis])
    found = []
    for block in _of_known_size(flow, node):
        if block.shape[axis] == 1:
            found.append(block.reshape(block.shape[:axis] + (1,) * wide + block.shape[axis + 1 :]))
        elif indices is not None:
            found.append(np.take(block, indices, axis))
            if not indices.ndim:
                _keep_taken(flow, block, found[-1], axis)
    flow.put(output, found)


def _keep_taken(flow: Flow, block: Block, taken: Block, axis: int) -> None:
    """One element of an axis stays; where others are open as well, elements go along those."""
    if covered(block) == [axis]:
        flow.labels.freeze([taken], f"{label(flow.node)} takes it")
    else:
        flow.labels.join(block, np.take(block, [0], axis))


def _repair_gather(removal: Removal, node: ir.Node) -> None:
    indices = edit.constant(node.inputs[1])
    kept = removal.kept(node.inputs[0], attribute(node, "axis") or 0)
    if indices is None or kept is None:
        return
    places = np.cumsum(kept) - 1
    wrapped = np.where(indices < 0, indices + len(kept), indices)
    left = wrapped[kept[wrapped]] if indices.ndim else wrapped
    removal.replace(node, 1, places[left].astype(indices.dtype))


def concat(flow: Flow, node: ir.Node) -> None:
    """Axes stand one behind the other; along the others operands meet."""
    width = rank(node.outputs[0])
    sizes = [dims(value) for value in node.inputs]
    axis = attribute(node, "axis")
    if width is None or any(each is None for each in sizes):
        for value in node.inputs:
            flow.freeze(value, f"the rank of what {label(node)} reads is not known")
        return
    axis %= width
    joined = _end_to_end(flow, node.inputs, axis, width)
    beside = [
        ([block for block in flow.blocks(value) if block.shape[axis] == 1], each)
        for value, each in zip(node.inputs, sizes, strict=True)
        if each is not None
    ]
    flow.put(node.outputs[0], [*joined, *combine(flow, beside)])


def _end_to_end(flow: Flow, values: Sequence[ir.Value | None], axis: int, width: int) -> list[Block]:
    """The labels along the axis of concatenation; elements without labels get some that stay."""
    lengths = [(dims(value) or [])[axis] for value in values]
    blocks = [next((each for each in flow.blocks(value) if each.shape[axis] > 1), None) for value in values]
    if all(block is None for block in blocks):
        return []
    if not all(isinstance(length, int) for length in lengths):
        flow.labels.freeze(
            [block for block in blocks if block is not None], f"{label(flow.node)} adds any number"
        )
        return []
    shapes = {None if block is None else _beside(block, axis) for block in blocks}
    if len(shapes) > 1 or None in shapes:
        blocks = [None if block is None else flow.labels.collapse(block, axis) for block in blocks]
    filled = []
    for block, length in zip(blocks, lengths, strict=True):
        if block is None:
            assert isinstance(length, int)
            block = flow.labels.fresh(length, axis, width)
            flow.labels.freeze([block], f"{label(flow.node)} adds what stays")
        filled.append(block)
    return [np.concatenate(filled, axis)]


def _beside(block: Block, axis: int) -> tuple[int, ...]:
    return block.shape[:axis] + block.shape[axis + 1 :]


def pad(flow: Flow, node: ir.Node) -> None:
    """A constant that is added to an axis has labels too."""
    source, width = node.inputs[0], rank(node.inputs[0])
    pads = None if width is None else _pads(node, width)
    if pads is None or width is None:
        flow.freeze(source, f"{label(node)} computes its sizes")
        return
    found = []
    for block in _of_known_size(flow, node):
        axes = [axis for axis in covered(block) if pads[axis] != (0, 0)]
        if axes and (
            attribute(node, "mode") not in (None, "constant")
            or len(covered(block)) > 1
            or min(pads[axes[0]]) < 0
        ):
            flow.labels.freeze([block], f"{label(node)} repeats it")
            continue
        for axis in axes:
            sides = [flow.labels.fresh(each, axis, width) for each in pads[axis]]
            block = np.concatenate([sides[0], block, sides[1]], axis)
        found.append(block)
    flow.put(node.outputs[0], found)


def _pads(node: ir.Node, width: int) -> list[tuple[int, int]] | None:
    """Elements before and behind every axis."""
    numbers = argument(node, 1, "pads")
    if numbers is None:
        return None
    axes = argument(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(width))
    if axes is None:
        return None
    found = [(0, 0)] * width
    for place, axis in enumerate(axes):
        found[axis % width] = numbers[place], numbers[place + len(axes)]
    return found


def _repair_pad(removal: Removal, node: ir.Node) -> None:
    width = rank(node.inputs[0])
    numbers = argument(node, 1, "pads")
    if width is None or numbers is None:
        return
    axes = argument(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(width))
    changed = list(numbers)
    for place, axis in enumerate(axes or []):
        kept = removal.kept(node.outputs[0], axis)
        if kept is not None:
            before, behind = numbers[place], numbers[place + len(numbers) // 2]
            changed[place] = int(kept[:before].sum())
            changed[place + len(numbers) // 2] = int(kept[len(kept) - behind :].sum())
    if changed != numbers:
        set_argument(removal, node, 1, "pads", changed)


def tile(flow: Flow, node: ir.Node) -> None:
    """Labels are repeated as elements are."""
    repeats = argument(node, 1)
    if repeats is None:
        flow.freeze(node.inputs[0], f"{label(node)} computes its repeats")
        return
    found = [
        np.tile(block, [times if size > 1 else 1 for times, size in zip(repeats, block.shape, strict=True)])
        for block in _of_known_size(flow, node)
    ]
    flow.put(node.outputs[0], found)


def depth_to_space(flow: Flow, node: ir.Node) -> None:
    """The channels that become one block of pixels go together."""
    flow.freeze(node.inputs[0], f"{label(node)} moves it", [0, 2, 3])
    channels, side = flow.axis(node.inputs[0], 1), int(attribute(node, "blocksize"))
    if channels is None:
        return
    first = attribute(node, "mode") == "CRD"
    grid = channels.reshape(-1, side * side) if first else channels.reshape(side * side, -1).T
    flow.labels.join(grid, grid[:, :1])
    flow.put(node.outputs[0], [along(np.ascontiguousarray(grid[:, 0]), 1, 4)])


def space_to_depth(flow: Flow, node: ir.Node) -> None:
    """A channel becomes as many as a block has pixels."""
    flow.freeze(node.inputs[0], f"{label(node)} moves it", [0, 2, 3])
    channels, side = flow.axis(node.inputs[0], 1), int(attribute(node, "blocksize"))
    if channels is not None:
        flow.put(node.outputs[0], [along(np.tile(channels, side * side), 1, 4)])


def resize(flow: Flow, node: ir.Node) -> None:
    """Axes that keep their sizes keep their labels."""
    source, before, after = node.inputs[0], dims(node.inputs[0]), dims(node.outputs[0])
    found = []
    for block in flow.blocks(source):
        axes = covered(block)
        if before is None or after is None or any(before[axis] != after[axis] for axis in axes):
            flow.labels.freeze([block], f"{label(node)} resizes it")
        elif len(node.inputs) > 3 and node.inputs[3] is not None and edit.constant(node.inputs[3]) is None:
            flow.labels.freeze([block], f"{label(node)} computes its sizes")
        else:
            found.append(block)
    flow.put(node.outputs[0], found)


def _repair_resize(removal: Removal, node: ir.Node) -> None:
    """Where sizes are given, not factors."""
    sizes = edit.constant(node.inputs[3] if len(node.inputs) > 3 else None)
    if sizes is None:
        return
    axes = attribute(node, "axes") or range(len(sizes))
    now = [removal.size(node.outputs[0], axis) or int(size) for axis, size in zip(axes, sizes, strict=True)]
    if now != sizes.tolist():
        removal.replace(node, 3, np.array(now, np.int64))


RULES: dict[tuple[str, str], Rule] = {
    ("", "Concat"): Rule(concat),
    ("", "DepthToSpace"): Rule(depth_to_space),
    ("", "Gather"): Rule(gather, _repair_gather),
    ("", "Pad"): Rule(pad, _repair_pad),
    ("", "Resize"): Rule(resize, _repair_resize),
    ("", "Slice"): Rule(slices, _repair_slice),
    ("", "SpaceToDepth"): Rule(space_to_depth),
    ("", "Split"): Rule(split, _repair_split),
    ("", "Tile"): Rule(tile),
    ("", "Upsample"): Rule(resize),
}

"""Normalisations, reductions and Softmax: what averages over channels averages over those that are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Flow, dims, label, rank
from graphopt.passes.prune.labels import Block, covered
from graphopt.passes.prune.rules.rule import Removal, Rule, argument, combine, lifted

CHANNELS = 1


def batch_normalisation(flow: Flow, node: ir.Node) -> None:
    """Every channel by itself, with numbers of its own."""
    image = node.inputs[0]
    flow.put(node.outputs[0], flow.blocks(image))
    _with_vectors(flow, node, flow.axis(image, CHANNELS), node.inputs[1:])


def instance_normalisation(flow: Flow, node: ir.Node) -> None:
    """Every channel by itself, over the whole image."""
    image = node.inputs[0]
    channels = flow.axis(image, CHANNELS)
    flow.freeze(image, f"{label(node)} averages over it", [0, *range(2, rank(image) or 2)])
    flow.put(node.outputs[0], flow.blocks(image))
    _with_vectors(flow, node, channels, node.inputs[1:])


def group_normalisation(flow: Flow, node: ir.Node) -> None:
    """The channels that are normalised together go together, so that results stay as they were."""
    image, groups = node.inputs[0], int(attribute(node, "num_groups"))
    channels = flow.axis(image, CHANNELS)
    flow.freeze(image, f"{label(node)} averages over it", range(2, rank(image) or 2))
    flow.put(node.outputs[0], flow.blocks(image))
    vectors = [value for value in node.inputs[1:] if value is not None]
    if channels is None:
        _with_vectors(flow, node, None, vectors)
        return
    rows = channels.reshape(groups, -1)
    flow.labels.join(rows, rows[:, :1])
    for value in vectors:
        size = (dims(value) or [None])[0]
        flow.meet(flow.axis(value, 0), rows[:, 0] if size == groups else channels, f"{label(node)} keeps it")


def _repair_groups(removal: Removal, node: ir.Node) -> None:
    image, groups = node.inputs[0], int(attribute(node, "num_groups"))
    kept = removal.kept(image, CHANNELS)
    if kept is not None:
        left = int(kept.reshape(groups, -1).any(axis=1).sum())
        node.attributes["num_groups"] = ir.AttrInt64("num_groups", left)


def _with_vectors(
    flow: Flow, node: ir.Node, channels: Block | None, values: Sequence[ir.Value | None]
) -> None:
    for value in values:
        if rank(value) == 1 and (dims(value) or [1])[0] != 1:
            flow.meet(flow.axis(value, 0), channels, f"{label(node)} keeps what it normalises")


def layer_normalisation(flow: Flow, node: ir.Node) -> None:
    """Mean and variance are those of what is left."""
    source, width = node.inputs[0], rank(node.inputs[0])
    if width is None or any(value is not None and rank(value) is None for value in node.inputs):
        flow.freeze(source, f"the rank of what {label(node)} reads is not known")
        return
    axis = attribute(node, "axis")
    first = (-1 if axis is None else axis) % width
    blocks = [_averaged(flow, block, range(first, width)) for block in flow.blocks(source)]
    if any(output.uses() for output in node.outputs[1:]):
        flow.labels.freeze(blocks, f"{label(node)} gives its means")
    sizes = dims(source) or []
    for value in node.inputs[1:]:
        found = lifted(flow, value, width)
        if value is not None and found is not None:
            blocks = combine(flow, [(blocks, sizes), found])
    flow.put(node.outputs[0], blocks)


def _averaged(flow: Flow, block: Block, axes: Sequence[int]) -> Block:
    """A block of what is averaged over; heads that are open decide for going whole."""
    if not set(axes) & set(covered(block)):
        return block
    block = flow.labels.outermost(block)
    if covered(block)[0] in axes:
        flow.inexact.append((block, f"{label(flow.node)} averages over what is left"))
    return block


def _reduction(over: Callable[[Flow, Block, Sequence[int]], Block]) -> Callable[[Flow, ir.Node], None]:
    """A reduction, for which `over` says what becomes of a block that covers what is reduced."""

    def follow(flow: Flow, node: ir.Node) -> None:
        source, width = node.inputs[0], rank(node.inputs[0])
        axes = argument(node, 1, "axes")
        computed = axes is None and len(node.inputs) > 1 and node.inputs[1] is not None
        if width is None or computed:
            flow.freeze(source, f"it is not known over which axes {label(node)} goes")
            return
        if not axes and attribute(node, "noop_with_empty_axes"):
            flow.put(node.outputs[0], flow.blocks(source))
            return
        reduced = sorted(axis % width for axis in axes) if axes else list(range(width))
        found = [over(flow, block, reduced) for block in flow.blocks(source)]
        left = [block for block in found if covered(block)[0] not in reduced]
        keep = attribute(node, "keepdims")
        flow.put(
            node.outputs[0],
            left if keep in (None, 1) else [np.squeeze(each, tuple(reduced)) for each in left],
        )

    return follow


def _summed(flow: Flow, block: Block, axes: Sequence[int]) -> Block:
    """What is gone adds nothing."""
    return flow.labels.outermost(block) if set(axes) & set(covered(block)) else block


def _whole(flow: Flow, block: Block, axes: Sequence[int]) -> Block:
    """All of it is needed."""
    block = _summed(flow, block, axes)
    if covered(block)[0] in axes:
        flow.labels.freeze([block], f"{label(flow.node)} needs all of it")
    return block


def along_axis(flow: Flow, node: ir.Node) -> None:
    """What works along an axis needs all of it."""
    source, width = node.inputs[0], rank(node.inputs[0])
    if width is None:
        flow.freeze(source, f"the rank of what {label(node)} reads is not known")
        return
    axis = attribute(node, "axis")
    axes = [(-1 if axis is None else axis) % width]
    flow.put(node.outputs[0], [_whole(flow, block, axes) for block in flow.blocks(source)])


def shape(flow: Flow, node: ir.Node) -> None:
    """Sizes that are read may not be those of what can go."""
    for block in flow.blocks(node.inputs[0]):
        given = list(range(block.ndim))[attribute(node, "start") or 0 : attribute(node, "end")]
        read = {axis for use in node.outputs[0].uses() for axis in _sizes_read(use.node, use.idx, given)}
        if set(covered(block)) & (set(given) if node.outputs[0].is_graph_output() else read):
            flow.labels.freeze([block], f"{label(node)} gives its size")


def _sizes_read(user: ir.Node, index: int, given: Sequence[int]) -> set[int]:
    """The axes whose sizes a user of a shape looks at, of those that it gives."""
    places = argument(user, 1) if user.op_type == "Gather" and index == 0 else None
    return set(given) if places is None else {given[place] for place in places}


def neighbours(flow: Flow, node: ir.Node) -> None:
    """LRN divides by what the channels beside have: those beside that are left."""
    channels = flow.axis(node.inputs[0], CHANNELS)
    if channels is not None:
        flow.inexact.append((channels, f"{label(node)} looks at the channels beside"))
    flow.put(node.outputs[0], flow.blocks(node.inputs[0]))


RULES: dict[tuple[str, str], Rule] = {
    ("", "BatchNormalization"): Rule(batch_normalisation),
    ("", "GroupNormalization"): Rule(group_normalisation, _repair_groups),
    ("", "InstanceNormalization"): Rule(instance_normalisation),
    **{
        ("", name): Rule(layer_normalisation)
        for name in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
    },
    ("", "LRN"): Rule(neighbours),
    ("", "ReduceMean"): Rule(_reduction(_averaged)),
    **{
        ("", name): Rule(_reduction(_summed))
        for name in ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")
    },
    **{
        ("", name): Rule(_reduction(_whole))
        for name in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp")
    },
    **{("", name): Rule(along_axis) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    ("", "Shape"): Rule(shape),
}

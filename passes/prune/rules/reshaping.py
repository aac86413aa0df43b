"""Reshape and its like: axes are split and joined, elements keep their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Dims, Flow, dims, label
from graphopt.passes.prune.labels import Block, covered
from graphopt.passes.prune.rules.rule import Removal, Rule, argument

Part = tuple[range, range]
"""Axes before, and the axes after that hold the same elements in the same order."""


def reshape(flow: Flow, node: ir.Node) -> None:
    """Labels are reshaped as elements are; what cannot be told from the shapes stays."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = dims(source), dims(output)
    if before is None or after is None:
        flow.freeze(source, f"the shapes of {label(node)} are not known")
        return
    flow.put(output, _moved(flow, node, parts(before, after), after))


def _moved(flow: Flow, node: ir.Node, divided: Sequence[Part], after: Dims) -> list[Block]:
    """The blocks of what a node reads, behind it."""
    found = []
    for block in flow.blocks(node.inputs[0]):
        moved = moved_block(block, dims(node.inputs[0]) or [], after, divided)
        if moved is None or not (_is_constant(node) or _is_known(moved, after)):
            flow.labels.freeze([block], f"{label(node)} mixes it with an axis of free size")
        else:
            found.append(moved)
    return _apart(flow, node, found)


def _is_constant(node: ir.Node) -> bool:
    """Whether a node has a shape that does not depend on what it reads."""
    return len(node.inputs) < 2 or edit.constant(node.inputs[1]) is not None


def _is_known(block: Block, sizes: Dims) -> bool:
    """Whether the axes that a block covers have their sizes in the graph."""
    return all(sizes[axis] == block.shape[axis] for axis in covered(block))


def _apart(flow: Flow, node: ir.Node, blocks: Sequence[Block]) -> list[Block]:
    """Of several blocks that a Reshape puts into one axis, the first may go."""
    kept: list[Block] = []
    for block in blocks:
        if any(set(covered(block)) & set(covered(other)) for other in kept):
            flow.labels.freeze([block], f"{label(node)} mixes it with another axis")
        else:
            kept.append(block)
    return kept


def parts(before: Dims, after: Dims) -> list[Part]:
    """Pairs of runs of axes with the same elements, as short as can be told: from both ends, then by products."""
    head = 0
    while head < min(len(before), len(after)) and _same(before[head], after[head]):
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and _same(before[-1 - tail], after[-1 - tail]):
        tail += 1
    ends = [(head, head), *_cuts(before, after, head, tail), (len(before) - tail, len(after) - tail)]
    return [
        *((range(axis, axis + 1), range(axis, axis + 1)) for axis in range(head)),
        *((range(a, c), range(b, d)) for (a, b), (c, d) in pairwise(ends) if (a, b) != (c, d)),
        *(
            (
                range(len(before) - axis, len(before) - axis + 1),
                range(len(after) - axis, len(after) - axis + 1),
            )
            for axis in range(tail, 0, -1)
        ),
    ]


def _same(left: int | str | None, right: int | str | None) -> bool:
    return left is not None and left == right


def _cuts(before: Dims, after: Dims, head: int, tail: int) -> list[tuple[int, int]]:
    """Places between the ends where the products of sizes so far agree, counted from the sides as far as sizes are numbers."""
    middle = before[head : len(before) - tail], after[head : len(after) - tail]
    found = {(head + a, head + b) for a, b in _agreements(*middle)}
    if not all(isinstance(size, int) for sizes in middle for size in sizes):
        flipped = _agreements(middle[0][::-1], middle[1][::-1])
        found |= {(len(before) - tail - a, len(after) - tail - b) for a, b in flipped}
    return sorted(found - {(len(before) - tail, len(after) - tail)})


def _agreements(before: Dims, after: Dims) -> list[tuple[int, int]]:
    """Numbers of leading axes with equal products, until a size is not a number."""
    known = [_known(sizes) for sizes in (before, after)]
    products = {math.prod(known[1][: count + 1]): count + 1 for count in reversed(range(len(known[1])))}
    found, last = [], 0
    for count in range(1, len(known[0]) + 1):
        place = products.get(math.prod(known[0][:count]))
        if place is not None and place > last:
            found.append((count, place))
            last = place
    return found


def _known(sizes: Dims) -> list[int]:
    leading = []
    for size in sizes:
        if not isinstance(size, int):
            break
        leading.append(size)
    return leading


def moved_block(block: Block, before: Dims, after: Dims, divided: Sequence[Part]) -> Block | None:
    """A block as it is after a Reshape, None where it is mixed with axes of free sizes.

    An axis of free size counts as 1: what is removed repeats itself along it. It is on the same side of what is covered before and
    behind the Reshape.
    """
    wide = list(block.shape)
    target = [1] * len(after)
    for sources, targets in divided:
        if all(block.shape[axis] == 1 for axis in sources):
            continue
        for axis in sources:
            wide[axis] = max(wide[axis], _number(before[axis]))
        sizes = _numbers(math.prod(wide[axis] for axis in sources), [after[axis] for axis in targets])
        if sizes is None:
            return None
        for axis, size in zip(targets, sizes, strict=True):
            target[axis] = size
        sides = _free_sides(sources, before, block.shape) | _free_sides(targets, after, target)
        if sides not in (set(), {-1}, {1}):
            return None
    return np.ascontiguousarray(np.broadcast_to(block, wide)).reshape(target)


def _free_sides(axes: range, sizes: Dims, lengths: Sequence[int]) -> set[int]:
    """Where axes of free size are: -1 in front of those that a block covers, 1 behind them, 0 between. What is free of an axis that
    is covered is in front: labels repeat themselves along it."""
    wide = [axis for axis in axes if lengths[axis] > 1]
    free = [axis for axis in axes if not isinstance(sizes[axis], int)]
    return {-1 if axis <= wide[0] else int(axis > wide[-1]) for axis in free}


def _number(size: int | str | None) -> int:
    return size if isinstance(size, int) else 1


def _numbers(total: int, sizes: Dims) -> list[int] | None:
    """Sizes with this product: those that are free are 1, or one of them is what is missing; None where that cannot be."""
    known = math.prod(_number(size) for size in sizes)
    free = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    found = [_number(size) for size in sizes]
    if known != total:
        if len(free) != 1 or not known or total % known:
            return None
        found[free[0]] = total // known
    return found


def _repair_shape(removal: Removal, node: ir.Node) -> None:
    """Writes new sizes into the shape; where it is computed, over what was computed."""
    output, after = node.outputs[0], dims(node.outputs[0]) or []
    changed = {axis: removal.size(output, axis) for axis in range(len(after))}
    sizes = {axis: size for axis, size in changed.items() if size is not None}
    if not sizes or len(node.inputs) < 2:
        return
    array = edit.constant(node.inputs[1])
    if array is None:
        _write_over(
            removal, node, {axis: 1 if node.op_type == "Expand" else size for axis, size in sizes.items()}
        )
        return
    entries = [int(each) for each in array]
    for axis, size in sizes.items():
        place = axis - len(after) + len(entries)
        if place >= 0 and (entries[place] not in (-1, 1) or after[axis] == 1):
            entries[place] = size
    removal.replace(node, 1, np.array(entries, np.int64))


def _write_over(removal: Removal, node: ir.Node, sizes: Mapping[int, int]) -> None:
    """Multiplies what is computed by 0 at some places, and adds sizes there."""
    rank = len(dims(node.outputs[0]) or [])
    factors, addends = np.ones(rank, np.int64), np.zeros(rank, np.int64)
    for axis, size in sizes.items():
        factors[axis], addends[axis] = 0, size
    value, graph = node.inputs[1], node.graph
    assert graph is not None
    product = ir.node("Mul", [value, value])
    total = ir.node("Add", [product.outputs[0], product.outputs[0]])
    for each, content in ((product, factors), (total, addends)):
        graph.insert_before(node, each)
        removal.replace(each, 1, content)
    node.replace_input_with(1, total.outputs[0])


def expand(flow: Flow, node: ir.Node) -> None:
    """Axes of size 1 that become longer have no labels."""
    source, output = node.inputs[0], node.outputs[0]
    after = dims(output)
    if after is None:
        flow.freeze(source, f"the shapes of {label(node)} are not known")
        return
    found = []
    for block in flow.blocks(source):
        moved = block.reshape((1,) * (len(after) - block.ndim) + block.shape)
        if _is_constant(node) or (dims(node.inputs[1]) == [len(after)] and _is_known(moved, after)):
            found.append(moved)
        else:
            flow.labels.freeze([block], f"{label(node)} computes its shape")
    flow.put(output, found)


def flatten(flow: Flow, node: ir.Node) -> None:
    """Two axes remain."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = dims(source), dims(output)
    if before is None or after is None:
        flow.freeze(source, f"the shapes of {label(node)} are not known")
        return
    axis = (attribute(node, "axis") or 0) % (len(before) + 1)
    divided = [(range(axis), range(1)), (range(axis, len(before)), range(1, 2))]
    flow.put(output, _moved(flow, node, divided, after))


def unsqueeze(flow: Flow, node: ir.Node) -> None:
    """New axes have no labels."""
    axes, source = argument(node, 1, "axes"), node.inputs[0]
    if axes is None:
        flow.freeze(source, f"{label(node)} computes its axes")
        return
    found = []
    for block in flow.blocks(source):
        rank = block.ndim + len(axes)
        found.append(np.expand_dims(block, tuple(axis % rank for axis in axes)))
    flow.put(node.outputs[0], found)


def squeeze(flow: Flow, node: ir.Node) -> None:
    """What has labels is longer than 1, and stays an axis."""
    source, axes = node.inputs[0], argument(node, 1, "axes")
    before = dims(source)
    absent = len(node.inputs) < 2 or node.inputs[1] is None
    if axes is None and absent and before is not None and all(isinstance(size, int) for size in before):
        axes = [axis for axis, size in enumerate(before) if size == 1]
    if axes is None:
        flow.freeze(source, f"it is not known which axes {label(node)} removes")
        return
    flow.put(node.outputs[0], [np.squeeze(block, tuple(axes)) for block in flow.blocks(source)])


def transpose(flow: Flow, node: ir.Node) -> None:
    """Axes change places."""
    order = attribute(node, "perm")
    flow.put(node.outputs[0], [np.transpose(block, order) for block in flow.blocks(node.inputs[0])])


RULES: dict[tuple[str, str], Rule] = {
    ("", "Expand"): Rule(expand, _repair_shape),
    ("", "Flatten"): Rule(flatten),
    ("", "Reshape"): Rule(reshape, _repair_shape),
    ("", "Squeeze"): Rule(squeeze),
    ("", "Transpose"): Rule(transpose),
    ("", "Unsqueeze"): Rule(unsqueeze),
}

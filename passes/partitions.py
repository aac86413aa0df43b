"""Pieces of what was just put together: slices and splits of a Concat are its operands."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.rewriting.pattern import Const, Op
from graphopt.rewriting.rewrite import Match, Replacement, Rule

CONCAT = Op("Concat", ..., shared=True)


def _sizes(concat: ir.Node, axis: int) -> list[int] | None:
    """The sizes of the operands along ``axis``; None unless all are known."""
    shapes = [None if value is None else value.shape for value in concat.inputs]
    if any(shape is None or not isinstance(shape[axis], int) for shape in shapes):
        return None
    return [shape[axis] for shape in shapes if shape is not None]  # type: ignore[misc]


def _concat_axis(concat: ir.Node) -> int | None:
    shape = concat.outputs[0].shape
    return None if shape is None else attribute(concat, "axis") % len(shape)


def _slice_of_concat(match: Match) -> Replacement:
    """A slice along the axis of the Concat that is exactly one of the operands."""
    concat = match.node(CONCAT)
    axis = _concat_axis(concat)
    bounds = _bounds(match.root)
    if axis is None or bounds is None:
        return None
    sizes = _sizes(concat, axis)
    start, end, sliced = bounds
    if sizes is None or sliced % len(concat.outputs[0].shape or ()) != axis:
        return None
    total = sum(sizes)
    start, end = (min(max(at + total if at < 0 else at, 0), total) for at in (start, end))
    edges = np.cumsum([0, *sizes]).tolist()
    for index, operand in enumerate(concat.inputs):
        if (edges[index], edges[index + 1]) == (start, end) and start < end:
            return operand
    return None


def _bounds(node: ir.Node) -> tuple[int, int, int] | None:
    """Start, end and axis of a slice along one axis, step 1."""
    if attribute(node, "starts") is not None:
        parts = [attribute(node, name) for name in ("starts", "ends", "axes")] + [[1]]
    else:
        parts = [edit.constant(value) for value in node.inputs[1:]]
        parts += [np.array([1])] * (4 - len(parts))
    if any(part is None or len(part) != 1 for part in parts) or len(node.inputs) == 3 or parts[3][0] != 1:
        return None
    return int(parts[0][0]), int(parts[1][0]), int(parts[2][0])


def _split_of_concat(match: Match) -> Replacement:
    """A split into the operands that were concatenated."""
    concat, split = match.node(CONCAT), match.root
    axis = _concat_axis(concat)
    if axis is None or attribute(split, "axis") % len(concat.outputs[0].shape or ()) != axis:
        return None
    sizes = _sizes(concat, axis)
    if sizes is None or sizes != _split_sizes(split, sum(sizes)) or len(sizes) != len(split.outputs):
        return None
    return [
        None if edit.is_unused(old) else new for old, new in zip(split.outputs, concat.inputs, strict=True)
    ]


def _split_sizes(split: ir.Node, total: int) -> list[int] | None:
    given: Sequence[int] | np.ndarray | None = attribute(split, "split")
    if given is None and len(split.inputs) > 1:
        given = edit.constant(split.inputs[1])
    if given is not None:
        return [int(size) for size in given]
    count = len(split.outputs)
    return [total // count] * count if len(split.inputs) < 2 and total % count == 0 else None


RULES = [
    Rule("slice of a concat", Op("Slice", CONCAT, ...), _slice_of_concat),
    Rule("split of a concat", Op("Split", CONCAT, ...), _split_of_concat),
]


def _same_pieces(match: Match) -> Replacement:
    """Where with a condition that is the same everywhere, if the operand has the shape of the result."""
    condition = match.array("condition")
    chosen = match["x"] if condition.all() else match["y"]
    result = match.root.outputs[0]
    if condition.size == 0 or (condition.any() and not condition.all()):
        return None
    if (
        chosen.shape is None
        or result.shape is None
        or chosen.shape != result.shape
        or not result.shape.is_static()
    ):
        return None
    return chosen


RULES.append(Rule("decided where", Op("Where", Const("condition", max_size=1 << 16), "x", "y"), _same_pieces))

"""Chains that change the rank, merged for any shape: two Unsqueeze, and whatever a later Reshape undoes."""

from collections.abc import Callable, Sequence

import numpy as np

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.evaluate import axes_of
from graphopt.passes.movement import RESHAPES
from graphopt.passes.transposes import REDUCTIONS
from graphopt.rewriting.pattern import Const, Op
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

INNER = Op("Unsqueeze", "x", ..., shared=True)


def _merge_unsqueezes(match: Match) -> Replacement:
    """The axes of both, as the last result counts them."""
    added = []
    for node in (match.node(INNER), match.root):
        axes = axes_of(node, [edit.constant(value) for value in node.inputs], 1)
        if axes is None or any(axis < 0 for axis in axes):
            return Refuse("the axes are not constant, or counted from the end")
        added.append(axes)
    inner, outer = added
    places = [axis for axis in range(len(inner) + len(outer) + max(inner) + 1) if axis not in outer]
    merged = sorted([*outer, *(places[axis] for axis in inner)])
    if attribute(match.root, "axes") is not None:
        return match.op("Unsqueeze", [match["x"]], axes=merged)
    return match.op("Unsqueeze", [match["x"], np.array(merged, np.int64)])


REDUCED = Op(REDUCTIONS, "x", ..., attributes={"keepdims": 0})
KEPT = Op(REDUCTIONS, "x", ..., attributes={"keepdims": 1})


def _toggle_keepdims(reduction: Op, keepdims: int) -> Callable[[Match], Replacement]:
    """A reduction whose axes are put back, or taken away, right after it."""

    def rewrite(match: Match) -> Replacement:
        node = match.node(reduction)
        rank = None if match["x"].shape is None else len(match["x"].shape)
        axes = [
            axes_of(each, [edit.constant(value) for value in each.inputs], 1) for each in (node, match.root)
        ]
        if any(each is None for each in axes):
            return None
        if axes[0] != axes[1] and (rank is None or _positions(axes[0], rank) != _positions(axes[1], rank)):
            return None
        return match.op(node.op_type, list(node.inputs), attributes_of=node, keepdims=keepdims)

    return rewrite


def _positions(axes: Sequence[int] | None, rank: int) -> list[int]:
    return sorted(axis % rank for axis in axes or ())


def _is_absolute(target: np.ndarray) -> bool:
    """No size is copied from the operand."""
    return bool(np.all(target != 0))


def _reshape_the_source(match: Match) -> Replacement:
    return match.op("Reshape", [match["x"], match["target"]])


RULES = [
    Rule("reduction that keeps its axes", Op("Unsqueeze", REDUCED, ...), _toggle_keepdims(REDUCED, 1)),
    Rule("reduction that drops its axes", Op("Squeeze", KEPT, ...), _toggle_keepdims(KEPT, 0)),
    Rule("unsqueeze chain", Op("Unsqueeze", INNER, ...), _merge_unsqueezes),
    Rule(
        "reshape of a reshape",
        Op("Reshape", Op(RESHAPES, "x", ..., shared=True), Const("target", where=_is_absolute, max_size=64)),
        _reshape_the_source,
    ),
]

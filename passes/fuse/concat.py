"""Concats that begin with another one's operands: they take its result, which the compiler leaves in place."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.rewriting.pattern import Op
from graphopt.rewriting.rewrite import Match, Replacement, Rule


def _begin_with_another(match: Match) -> Replacement:
    """The longest Concat before this one whose operands are the first of this one's."""
    root = match.root
    before = max(_beginnings(root), key=lambda node: len(node.inputs), default=None)
    if before is None:
        return None
    operands = [before.outputs[0], *root.inputs[len(before.inputs) :]]
    return match.op("Concat", operands, axis=attribute(root, "axis"))


def _beginnings(root: ir.Node) -> Iterator[ir.Node]:
    first = root.inputs[0]
    assert first is not None
    found = [node for node, _ in first.uses() if node is not root and _is_beginning(node, root)]
    if found:
        assert root.graph is not None
        order = {node: position for position, node in enumerate(root.graph)}
        yield from (node for node in found if order[node] < order[root])


def _is_beginning(node: ir.Node, root: ir.Node) -> bool:
    return (
        node.op_type == "Concat"
        and node.domain == ""
        and node.graph is root.graph
        and 1 < len(node.inputs) < len(root.inputs)
        and list(node.inputs) == list(root.inputs[: len(node.inputs)])
        and attribute(node, "axis") == attribute(root, "axis")
    )


RULES = [Rule("concat prefix", Op("Concat", ...), _begin_with_another)]

"""Operators whose results are elements of their inputs, of whatever type those are."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

VIEWS = ("Concat", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

MOVERS = (*VIEWS, "DepthToSpace", "MaxPool", "Resize", "Slice", "SpaceToDepth", "Split")


def moves_elements(node: ir.Node, movers: Collection[str] = MOVERS) -> bool:
    """Whether a node is one of the movers, in a mode that computes nothing."""
    return (
        not node.domain and node.op_type in movers and (node.op_type != "Resize" or _mode(node) == "nearest")
    )


def moved_inputs(node: ir.Node) -> range:
    """The inputs whose elements a mover moves."""
    return range(len(node.inputs) if node.op_type == "Concat" else 1)


def _mode(node: ir.Node) -> str:
    attribute = node.attributes.get("mode")
    return "nearest" if attribute is None else attribute.as_string()

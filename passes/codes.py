"""Weights that are stored as codes, Gather(codebook, Cast(codes)), and the pass that makes floats of them again."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pipeline import Context, Outcome

CODES = frozenset({ir.DataType.UINT4, ir.DataType.UINT8})

LOOKUPS = frozenset({"Gather", "GatherElements"})
"""Operators that look up values, their first input, by indices, their second one."""


def is_codes(node: ir.Node) -> bool:
    """Whether a node widens constant codes of at most eight bits for nothing but lookups in constant codebooks."""
    if (node.domain, node.op_type) != ("", "Cast") or node.outputs[0].is_graph_output():
        return False
    stored = edit.tensor(node.inputs[0])
    uses = node.outputs[0].uses()
    return (
        stored is not None and stored.dtype in CODES and bool(uses) and all(_is_lookup(*use) for use in uses)
    )


def _is_lookup(node: ir.Node, position: int) -> bool:
    return (
        node.domain == ""
        and node.op_type in LOOKUPS
        and position == 1
        and edit.tensor(node.inputs[0]) is not None
    )


@dataclass(frozen=True)
class Decode:
    """Computes the weights that codes stand for."""

    name: ClassVar[str] = "decode"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """In the main graph and in subgraphs."""
        from graphopt.passes.fold import Folder

        casts = [node for node in edit.nodes(model.graph) if is_codes(node)]
        lookups = [use.node for cast in casts for use in cast.outputs[0].uses()]
        folder = Folder(model, max_growth=2**63)
        for node in (*casts, *lookups):
            folder.fold(node)
        return folder.outcome()

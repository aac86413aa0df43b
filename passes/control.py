"""Control flow that is decided already: an If with a constant condition becomes the branch that it takes."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.rewriting.pipeline import Context, Outcome


@dataclass(frozen=True)
class InlineIf:
    """Moves the nodes of the taken branch to where the If was."""

    name: ClassVar[str] = "inline-if"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Outer Ifs first, so that Ifs inside a taken branch are met again in their new place."""
        applied: Counter[str] = Counter()
        refused: Counter[tuple[str, str]] = Counter()
        while node := next(filter(_is_decided, edit.nodes(model.graph)), None):
            _inline(node)
            applied["if with a constant condition"] += 1
        undecidable = sum(map(_passes_through, edit.nodes(model.graph)))
        if undecidable:
            refused["if with a constant condition", "the branch returns a value that it does not compute"] = (
                undecidable
            )
        return Outcome(bool(applied), applied, refused)


def _is_constant_if(node: ir.Node) -> bool:
    return node.op_type == "If" and node.domain == "" and edit.tensor(node.inputs[0]) is not None


def _is_decided(node: ir.Node) -> bool:
    return _is_constant_if(node) and _is_self_contained(_taken(node))


def _passes_through(node: ir.Node) -> bool:
    return _is_constant_if(node) and not _is_self_contained(_taken(node))


def _is_self_contained(branch: ir.Graph) -> bool:
    return all(value.producer() is not None or value.is_initializer() for value in branch.outputs)


def _taken(node: ir.Node) -> ir.Graph:
    condition = edit.constant(node.inputs[0])
    assert condition is not None
    branch: ir.Graph = attribute(node, "then_branch" if condition.reshape(-1)[0] else "else_branch")
    return branch


def _inline(node: ir.Node) -> None:
    graph, branch = node.graph, _taken(node)
    assert graph is not None
    results = list(branch.outputs)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        edit.drop_initializer(value)
        graph.register_initializer(value)
    inner = list(branch)
    branch.remove(inner)
    graph.insert_before(node, inner)
    edit.replace_outputs(node, results)

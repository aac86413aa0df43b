"""Removes nodes and initializers that no output depends on, in the main graph and in subgraphs."""

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pipeline import Outcome
from graphopt.rewriting.rewrite import is_removable


def remove_dead_code(model: ir.Model) -> Outcome:
    """Inputs of the model stay even if nothing reads them, and so do nodes of unknown domains."""
    applied: Counter[str] = Counter()
    for graph in reversed(list(edit.graphs(model))):
        applied["dead node"] += sum(1 for _ in _remove_nodes(graph))
    for graph in edit.graphs(model):
        applied["unused initializer"] += sum(1 for _ in _remove_initializers(graph))
    applied = +applied
    return Outcome(bool(applied), applied)


def _remove_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in reversed(list(graph)):
        if edit.is_dead(node) and is_removable(node):
            edit.detach(node)
            yield node


def _remove_initializers(graph: ir.Graph) -> Iterator[ir.Value]:
    for value in list(graph.initializers.values()):
        if edit.is_unused(value) and not value.is_graph_input():
            edit.drop_initializer(value)
            yield value

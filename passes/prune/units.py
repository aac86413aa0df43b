"""Layers and blocks that a model can do without: what is between two values of equal shape, where the first can stand in for the second.

Those are the branches of residual sums, `x + f(x)`, and what leads from one value to another like it by way of a layer. As in Men et al.,
"ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024, nothing is put in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import networkx as nx
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.statistics import macs
from graphopt.passes.dead_code import remove_dead_code
from graphopt.passes.prune.flow import dims
from graphopt.passes.prune.rules.elementwise import BROADCAST, UNARY
from graphopt.rewriting.rewrite import is_removable

Vertex = ir.Node | ir.Value | str
"""A node, an input of the graph, or `START`, which all those come from that read neither."""

START = "start"

Ends = tuple[ir.Value, ir.Value]
"""An entry and an exit."""


@dataclass(frozen=True)
class Unit:
    """`exit` becomes `entry`, values by name; `nodes` are those that are of no use then, in order, and `macs` their multiply-adds."""

    entry: str
    exit: str
    nodes: tuple[str, ...]
    macs: int


def find_units(model: ir.Model, is_protected: Callable[[ir.Node], bool] = lambda node: False) -> list[Unit]:
    """The units of a model with named nodes and inferred shapes; one whose nodes are protected, or multiply nothing, is none."""
    found: dict[tuple[str, str], Unit] = {}
    for entry, exit in (*_residuals(model.graph), *_chains(model.graph)):
        if exit.is_graph_output() or not (entry.name and exit.name):
            continue
        gone = _of_no_use(model.graph, entry, exit)
        multiplied = sum(macs(node) for node in gone)
        if multiplied and not any(is_protected(node) for node in gone):
            names = tuple(node.name or "" for node in gone)
            found.setdefault((entry.name, exit.name), Unit(entry.name, exit.name, names, multiplied))
    return list(found.values())


def remove_unit(model: ir.Model, unit: Unit) -> None:
    """Take a unit out of a model, in place. The entry is called as the exit was where it has taken its place for all who read it."""
    values = {value.name: value for value in _values(model.graph)}
    entry, exit = values[unit.entry], values[unit.exit]
    readers = set(exit.consumers())
    is_alone = (
        entry.producer() is not None and not entry.is_graph_output() and not readers & set(entry.consumers())
    )
    exit.replace_all_uses_with(entry)
    remove_dead_code(model)
    if is_alone and set(entry.consumers()) == readers and exit.graph is None:
        entry.name = unit.exit


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All that nodes of a graph may read of it but constants."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _residuals(graph: ir.Graph) -> Iterator[Ends]:
    """For sums of two values, the one that the other one is computed from, and the sum."""
    flow = _flow(graph)
    for node in graph:
        if (node.domain, node.op_type) != ("", "Add") or None in node.inputs:
            continue
        for kept, branch in (node.inputs, node.inputs[::-1]):
            assert kept is not None
            assert branch is not None
            if _alike(kept, node.outputs[0]) and _is_made_of(flow, branch, kept):
                yield kept, node.outputs[0]


def _is_made_of(flow: nx.DiGraph[Vertex], value: ir.Value, other: ir.Value) -> bool:
    return _origin(value) in flow and _origin(other) in nx.ancestors(flow, _origin(value))


def _chains(graph: ir.Graph) -> Iterator[Ends]:
    """For layers, the nearest value before that is like their result, and that all of what they read is computed from; the result is taken
    behind an activation."""
    dominators: dict[Vertex, Vertex | None] = nx.immediate_dominators(_flow(graph), START)
    for node in graph:
        if not macs(node):
            continue
        exit, vertex = _behind_activations(node.outputs[0]), dominators.get(node)
        while vertex not in (None, START):
            assert not isinstance(vertex, str)
            assert vertex is not None
            entry = vertex if isinstance(vertex, ir.Value) else vertex.outputs[0]
            if _alike(entry, exit):
                if not set(entry.consumers()) & set(exit.consumers()):
                    yield entry, exit
                break
            vertex = dominators.get(vertex)


def _flow(graph: ir.Graph) -> nx.DiGraph[Vertex]:
    """Nodes and inputs, from the start through whom reads whom."""
    found: nx.DiGraph[Vertex] = nx.DiGraph()
    found.add_edges_from((START, value) for value in graph.inputs)
    for node in graph:
        origins = [
            _origin(value) for value in node.inputs if value is not None and edit.tensor(value) is None
        ]
        found.add_edges_from((origin, node) for origin in origins or [START])
    return found


def _origin(value: ir.Value) -> Vertex:
    return value.producer() or value


def _alike(value: ir.Value, other: ir.Value) -> bool:
    """Whether two values have the same shape and type for sure."""
    shape = dims(value)
    return shape is not None and None not in shape and shape == dims(other) and value.dtype == other.dtype


def _behind_activations(value: ir.Value) -> ir.Value:
    """What follows of operators on elements that read nothing but this value and constants."""
    while len(uses := list(value.uses())) == 1:
        node = uses[0].node
        others = [each for each in node.inputs if each is not None and each is not value]
        is_elementwise = node.domain == "" and node.op_type in {*UNARY, *BROADCAST}
        constant = all(edit.tensor(each) is not None for each in others)
        if not (is_elementwise and constant and node.graph is value.producer().graph):  # type: ignore[union-attr]
            break
        if not _alike(value, node.outputs[0]):
            break
        value = node.outputs[0]
    return value


def _of_no_use(graph: ir.Graph, entry: ir.Value, exit: ir.Value) -> list[ir.Node]:
    """The nodes that only what reads the exit, or each other, need, once that reads the entry."""
    gone: set[ir.Node] = set()

    def is_needed(value: ir.Value) -> bool:
        if value is exit:
            return False
        return (
            value is entry or value.is_graph_output() or any(user not in gone for user in value.consumers())
        )

    for node in reversed(list(graph)):
        if is_removable(node) and not any(is_needed(output) for output in node.outputs):
            gone.add(node)
    return [node for node in graph if node in gone]

"""The graph edits that passes are allowed to make; names of graph inputs and outputs always stay."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""The standard operators that hold graphs."""


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, then every subgraph below it."""
    yield from _with_subgraphs(model.graph)


def _with_subgraphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    for node in graph:
        for inner in subgraphs(node):
            yield from _with_subgraphs(inner)


def nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every node of ``graph``, each followed by those of its subgraphs."""
    for node in graph:
        yield node
        for inner in subgraphs(node):
            yield from nodes(inner)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs directly inside the attributes of ``node``."""
    if node.domain == "" and node.op_type not in CONTROL_FLOW:
        return
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant behind ``value``, without reading its data.

    None if there is none, or if a caller may override it because it is a graph input as well.
    """
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The data behind ``value`` (not to be written to), or None if it is not constant."""
    found = tensor(value)
    return None if found is None else found.numpy()


def byte_size(tensor: ir.TensorProtocol) -> int:
    """The size of the data; for strings, of their characters."""
    if tensor.dtype == ir.DataType.STRING:
        return sum(len(each) for each in tensor.numpy().reshape(-1).tolist())
    return tensor.nbytes


class Names:
    """Value names in use in a model; ``fresh`` gives one that is not."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._taken: set[str] = set()

    def _collect(self) -> None:
        """At the first question, since most passes have none."""
        for graph in graphs(self._model):
            self._taken.update(value.name for value in graph.inputs if value.name)
            self._taken.update(graph.initializers)
            self._taken.update(output.name for node in graph for output in node.outputs if output.name)

    def fresh(self, base: str) -> str:
        """``base`` or, where taken, ``base_1``, ``base_2``, ..."""
        if not self._taken:
            self._collect()
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def name_nodes(graph: ir.Graph) -> None:
    """Gives every node of ``graph`` a name of its own."""
    seen: set[str] = set()
    for node in graph:
        wish = node.name or node.op_type
        name = node.name or f"{wish}_0"
        number = 0
        while name in seen:
            number += 1
            name = f"{wish}_{number}"
        node.name = name
        seen.add(name)


def add_constant(graph: ir.Graph, content: np.ndarray | ir.TensorProtocol, name: str) -> ir.Value:
    """Adds an initializer to ``graph`` under ``name``, which must be free."""
    dtype = None if isinstance(content, np.ndarray) else content.dtype
    found = ir.Tensor(content, dtype, name=name)
    shape = ir.Shape(found.shape.numpy())
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(found.dtype), const_value=found)
    graph.register_initializer(value)
    return value


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Puts nodes right behind what makes ``value``, or at the start of ``graph`` where no node of it does."""
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)


def drop_initializer(value: ir.Value) -> None:
    """Removes an initializer from its graph."""
    assert value.graph is not None
    assert value.name is not None
    del value.graph.initializers[value.name]


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether ``new`` can stand for ``old`` without an Identity, that is, without touching an output's name."""
    return not old.is_graph_output() or _can_become_output(new, old.graph)


def _can_become_output(value: ir.Value, graph: ir.Graph | None) -> bool:
    producer = value.producer()
    return producer is not None and producer.graph is graph and not value.is_graph_output()


def replace_outputs(node: ir.Node, values: Sequence[ir.Value | None]) -> list[ir.Node]:
    """Lets ``values`` stand for the outputs of ``node``, then removes ``node``.

    ``None`` marks an output without users. An output of the graph keeps its name: the new value takes it over, or an
    Identity carries it where the new value is itself an input, an initializer, an output or of an outer graph.
    Returns the Identity nodes that were added.
    """
    added = []
    graph = node.graph
    assert graph is not None
    for old, new in zip(node.outputs, values, strict=True):
        if new is None:
            assert is_unused(old), f"{old.name} is used and has no replacement"
            continue
        inherit_type(old, new)
        if not can_replace(old, new):
            identity = ir.node("Identity", [new])
            graph.insert_before(node, identity)
            added.append(identity)
            new = identity.outputs[0]
            inherit_type(old, new)
        _take_over(old, new)
    detach(node)
    return added


def _take_over(old: ir.Value, new: ir.Value) -> None:
    name = old.name
    is_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if is_output:
        old.name = None
        new.name = name
        new.shape = old.shape if old.shape is not None else new.shape
        new.metadata_props.update(old.metadata_props)


def inherit_type(old: ir.Value, new: ir.Value) -> None:
    """Copies to ``new`` what only ``old`` knows about type and shape; a fixed dimension wins over a free one."""
    if new.type is None:
        new.type = old.type
    if old.shape is None or new.is_initializer() or new.is_graph_input():
        return
    if new.shape is None:
        new.shape = old.shape.copy()
    elif len(new.shape) == len(old.shape):
        new.shape = ir.Shape(_merged(mine, other) for mine, other in zip(new.shape, old.shape, strict=True))


def _merged(mine: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    if isinstance(mine, int):
        return mine
    return other if isinstance(other, int) or mine.value is None else mine


def detach(node: ir.Node) -> None:
    """Removes ``node`` from its graph and from the users of its inputs."""
    assert node.graph is not None
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for graph in subgraphs(node):
        _detach_all(graph)
    node.graph.remove(node)


def _detach_all(graph: ir.Graph) -> None:
    for inner in list(graph):
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)
        for below in subgraphs(inner):
            _detach_all(below)


def is_unused(value: ir.Value) -> bool:
    """Whether no node and no graph output needs ``value``."""
    return not value.uses() and not value.is_graph_output()


def is_dead(node: ir.Node) -> bool:
    """Whether ``node`` is in a graph and none of its outputs is needed."""
    return node.graph is not None and all(is_unused(output) for output in node.outputs)


def share_opsets(model: ir.Model) -> None:
    """Tells every subgraph the opsets of the model, so that a node's version can be asked of its own graph."""
    for graph in graphs(model):
        if graph is not model.graph:
            graph.opset_imports.update(model.opset_imports)

"""Products of one value with several constant matrices become one product, as queries, keys and values do."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pipeline import Context, Outcome

MOVEMENT = frozenset({"Attention", "Reshape", "Transpose"})
"""Operators that read a part of a wider result as easily as a result of its own; elementwise ones would cost a kernel then."""

RULE = "products of one value"
SIZES_ARE_INPUTS = 13
"""The opset from which on Split takes the sizes of its parts as an input."""


@dataclass(frozen=True)
class Product:
    """A MatMul with a constant matrix, and the bias that is added to it, if any; `result` is what comes out of both."""

    node: ir.Node
    weight: np.ndarray
    bias: np.ndarray | None
    result: ir.Value

    @property
    def width(self) -> int:
        return int(self.weight.shape[1])


@dataclass(frozen=True)
class MergeProducts:
    """Puts the matrices side by side, and splits what they give."""

    name: ClassVar[str] = "merge-products"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Every group of at least two."""
        names, applied = edit.Names(model), Counter[str]()
        for graph in list(edit.graphs(model)):
            for group in _groups(graph):
                _merge(graph, group, model.opset_imports[""], names)
                applied[RULE] += 1
        return Outcome(bool(applied), applied)


def _groups(graph: ir.Graph) -> list[list[Product]]:
    """Products that read the same value, in the order of the graph."""
    found: defaultdict[ir.Value, list[Product]] = defaultdict(list)
    for node in graph:
        product = _product(node)
        if product is not None and node.inputs[0] is not None:
            found[node.inputs[0]].append(product)
    return [group for group in found.values() if len(group) > 1]


def _product(node: ir.Node) -> Product | None:
    """A node as a product that may be merged; rows of more than one axis keep it a MatMul rather than a Gemm."""
    if (node.domain, node.op_type) != ("", "MatMul"):
        return None
    left, right = node.inputs
    weight = edit.tensor(right)
    if left is None or left.shape is None or weight is None:
        return None
    if len(left.shape) < 2 or len(weight.shape) != 2 or weight.dtype != ir.DataType.FLOAT:
        return None
    result, bias = _with_bias(node.outputs[0], int(weight.shape.numpy()[1]))
    if result.is_graph_output() or not all(user.op_type in MOVEMENT for user in _users(result)):
        return None
    return Product(node, weight.numpy(), bias, result)


def _with_bias(value: ir.Value, width: int) -> tuple[ir.Value, np.ndarray | None]:
    """What an Add of a constant row makes of a value, and that row."""
    users = list(_users(value))
    if value.is_graph_output() or [user.op_type for user in users] != ["Add"]:
        return value, None
    for addend in users[0].inputs:
        bias = edit.constant(addend)
        if bias is not None and bias.shape == (width,):
            return users[0].outputs[0], bias
    return value, None


def _users(value: ir.Value) -> Iterator[ir.Node]:
    return (use.node for use in value.uses())


def _merge(graph: ir.Graph, group: Sequence[Product], opset: int, names: edit.Names) -> None:
    first = group[0].node
    base = first.outputs[0].name or "product"
    weight = edit.add_constant(
        graph, np.concatenate([each.weight for each in group], 1), names.fresh(f"{base}_weights")
    )
    nodes = [ir.node("MatMul", [first.inputs[0], weight])]
    if any(each.bias is not None for each in group):
        rows = [np.zeros(each.width, np.float32) if each.bias is None else each.bias for each in group]
        bias = edit.add_constant(graph, np.concatenate(rows), names.fresh(f"{base}_bias"))
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias]))
    nodes.append(_split(graph, nodes[-1].outputs[0], [each.width for each in group], opset, names))
    for node in nodes:
        for output in node.outputs:
            output.name = names.fresh(f"{base}_{node.op_type.lower()}")
    graph.insert_before(first, nodes)
    for each, part in zip(group, nodes[-1].outputs, strict=True):
        _replace(each, part)


def _split(graph: ir.Graph, value: ir.Value, sizes: Sequence[int], opset: int, names: edit.Names) -> ir.Node:
    """The node that takes a value apart along its last axis."""
    if opset < SIZES_ARE_INPUTS:
        return ir.node("Split", [value], {"axis": -1, "split": list(sizes)}, num_outputs=len(sizes))
    given = edit.add_constant(graph, np.array(sizes, np.int64), names.fresh(f"{value.name or 'split'}_sizes"))
    return ir.node("Split", [value, given], {"axis": -1}, num_outputs=len(sizes))


def _replace(product: Product, part: ir.Value) -> None:
    last = product.result.producer()
    assert last is not None
    edit.replace_outputs(last, [part])
    if last is not product.node:
        edit.detach(product.node)

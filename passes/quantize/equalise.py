"""Evens out the channels between two convolutions: what one multiplies into a channel, the next divides out again.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019. Exact wherever only operators stand in
between that let positive factors through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.quantize.plan import Plan

HOMOGENEOUS = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Relu")
"""Operators on each channel by itself whose result is multiplied by a positive factor when their input is."""


@dataclass(frozen=True)
class Pair:
    """Two convolutions, the second of which alone reads what becomes of the first."""

    first: ir.Node
    second: ir.Node


def equalise(model: ir.Model, plan: Plan) -> int:
    """Scale the channels between all pairs, in place, until both sides have weights of the same size. Gives the number of pairs."""
    names, found = edit.Names(model), list(pairs(plan))
    for pair in found:
        factors = _factors(_filters(pair.first), _channels(pair.second))
        _divide(model.graph, pair.first, factors, names)
        _multiply(model.graph, pair.second, factors, names)
    return len(found)


def pairs(plan: Plan) -> Iterator[Pair]:
    """In the order of the graph."""
    for node in plan.anchors:
        second = _sole_reader(node)
        while second is not None and second.op_type in HOMOGENEOUS and second.domain == "":
            second = _sole_reader(second)
        if second in plan.anchors and _is_plain(node) and _is_plain(second):
            yield Pair(node, second)


def _is_plain(node: ir.Node) -> bool:
    """Whether a node is a convolution whose constants nobody shares."""
    constants = [value for value in node.inputs[1:] if value is not None]
    alone = all(edit.tensor(value) is not None and len(list(value.uses())) == 1 for value in constants)
    return node.op_type == "Conv" and alone


def _sole_reader(node: ir.Node) -> ir.Node | None:
    """The one node that reads the first output of a node, as its first input."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].idx != 0 or node.outputs[0].is_graph_output():
        return None
    return uses[0].node


def _factors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Those by which channels are divided so that the largest weights on both sides are equal; one for channels without any."""
    known = (first > 0) & (second > 0)
    ratio = np.where(known, first, 1.0) / np.where(known, second, 1.0)
    return np.where(known, np.sqrt(ratio), 1.0).astype(np.float32)


def _filters(node: ir.Node) -> np.ndarray:
    """The largest weight that makes each output channel."""
    weights = _weights(node)
    return np.asarray(np.abs(weights).reshape(len(weights), -1).max(axis=1))


def _channels(node: ir.Node) -> np.ndarray:
    """The largest weight that reads each input channel."""
    grouped = _by_group(node, _weights(node))
    return np.asarray(np.abs(grouped).max(axis=(1, 3)).reshape(-1))


def _by_group(node: ir.Node, weights: np.ndarray) -> np.ndarray:
    """`[group, filter, channel, rest]`."""
    groups = attribute(node, "group") or 1
    return weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)


def _weights(node: ir.Node) -> np.ndarray:
    weights = edit.constant(node.inputs[1])
    assert weights is not None
    return weights


def _divide(graph: ir.Graph, node: ir.Node, factors: np.ndarray, names: edit.Names) -> None:
    """Divide the output channels."""
    for position in range(1, len(node.inputs)):
        array = edit.constant(node.inputs[position])
        if array is not None:
            scaled = array / factors.reshape(-1, *[1] * (array.ndim - 1))
            _replace(graph, node, position, scaled, names)


def _multiply(graph: ir.Graph, node: ir.Node, factors: np.ndarray, names: edit.Names) -> None:
    """Multiply the input channels."""
    weights = _weights(node)
    grouped = _by_group(node, weights)
    scaled = grouped * factors.reshape(grouped.shape[0], 1, grouped.shape[2], 1)
    _replace(graph, node, 1, scaled.reshape(weights.shape), names)


def _replace(graph: ir.Graph, node: ir.Node, position: int, array: np.ndarray, names: edit.Names) -> None:
    value = node.inputs[position]
    assert value is not None
    name = names.fresh(f"{value.name}_equalised")
    node.replace_input_with(position, edit.add_constant(graph, array.astype(np.float32), name))

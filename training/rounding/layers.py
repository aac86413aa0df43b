"""The layers of a quantised model whose weights can be rounded in other ways, next to the same layers on floats."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.training.executor.operator import Tensor
from graphopt.training.rounding.grid import Grid, constant_levels, floats_of, grid_of

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})

ACTIVATIONS = frozenset({"Clip", "LeakyRelu", "Relu"})
"""What counts as part of the layer before, since errors that it swallows do no harm."""


@dataclass(frozen=True)
class Layer:
    """Names of values in both models, and the weights.

    `input` is what the layer reads, `weight` the value of its weights, `result` what it gives. `levels` is the constant of
    integers, on a grid, that stands for `floats`.
    """

    name: str
    input: str
    weight: str
    result: str
    levels: ir.Value
    floats: Tensor
    grid: Grid


def find_layers(teacher: ir.Model, quantized: ir.Model) -> list[Layer]:
    """Every layer with constant integer weights, in topological order; samples lie along the first axis of what it reads.

    Layers are the same in both models if their results have the same name. Of several that share their weights only the first is
    found.
    """
    originals = {node.outputs[0].name: node for node in teacher.graph}
    found: dict[ir.Value, Layer] = {}
    for node in quantized.graph:
        original = originals.get(node.outputs[0].name)
        layer = None if original is None else _layer(node, original)
        if layer is not None:
            found.setdefault(layer.levels, layer)
    return list(found.values())


def _layer(node: ir.Node, original: ir.Node) -> Layer | None:
    if node.op_type not in LAYERS or node.op_type != original.op_type or attribute(node, "transA"):
        return None
    data, weight = node.inputs[:2]
    if data is None or weight is None or data.shape is None or len(data.shape) < 2:
        return None
    source = weight.producer()
    levels, floats = constant_levels(source), floats_of(original.inputs[1])
    if source is None or levels is None or floats is None or levels.shape != tuple(floats.shape):
        return None
    grid = grid_of(source)
    if grid is None:
        return None
    read, used, made = (value.name or "" for value in (data, weight, _result(node)))
    return Layer(node.name or "", read, used, made, levels, floats, grid)


def _result(node: ir.Node) -> ir.Value:
    """What a layer gives, an activation included that is all that reads it."""
    value = node.outputs[0]
    readers = [use.node for use in value.uses()]
    if len(readers) == 1 and not value.is_graph_output() and readers[0].op_type in ACTIVATIONS:
        return readers[0].outputs[0]
    return value

"""Writes a plan into a model: QuantizeLinear and DequantizeLinear around values, integers for weights and biases.

Activations are uint8 with one scale, weights int8 around zero with a scale for each output channel, biases int32 in steps of
their products, as ONNX Runtime and OpenVINO expect them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphopt import edit
from graphopt.passes.quantize.plan import Plan
from graphopt.passes.quantize.ranges import Parameters
from graphopt.pattern import attribute

LARGEST = 127
"""Of the integers of weights: -128 is left out, so that they are symmetric."""

LARGEST_BIAS = 2**30


def insert(model: ir.Model, plan: Plan, found: Mapping[ir.Value, Parameters]) -> None:
    """Change `model` in place; `found` has the parameters of the value that leads each group. Opset 13 or newer."""
    writer = _Writer(model)
    dequantized = {value: writer.round_trip(value, found[plan.group(value)]) for value in plan.values}
    for node in plan.anchors:
        assert node.inputs[0] is not None
        writer.weights(node, found[plan.group(node.inputs[0])].scale)
    for value, readers in plan.readers.items():
        for reader in readers:
            for i, read in enumerate(reader.inputs):
                if read is value:
                    reader.replace_input_with(i, dequantized[value])
    for node in plan.tables:
        writer.table(node)


class _Writer:
    """Adds nodes and constants to one graph."""

    def __init__(self, model: ir.Model) -> None:
        self._graph, self._names = model.graph, edit.Names(model)
        self._weights: dict[tuple[ir.Value, int], tuple[ir.Value, np.ndarray]] = {}

    def round_trip(self, value: ir.Value, parameters: Parameters) -> ir.Value:
        """What integers stand for, in place of a value."""
        scale = self._constant(np.asarray(parameters.scale), f"{value.name}_scale")
        zero = self._constant(np.asarray(parameters.zero), f"{value.name}_zero_point")
        down = self._node("QuantizeLinear", [value, scale, zero], f"{value.name}_quantized")
        up = self._node("DequantizeLinear", [down.outputs[0], scale, zero], f"{value.name}_dequantized")
        down.outputs[0].type, up.outputs[0].type = ir.TensorType(ir.DataType.UINT8), value.type
        down.outputs[0].shape = up.outputs[0].shape = value.shape
        producer = value.producer()
        if producer is None:
            first = next(iter(self._graph))
            self._graph.insert_before(first, [down, up])
        else:
            self._graph.insert_after(producer, [down, up])
        return up.outputs[0]

    def weights(self, node: ir.Node, scale: np.float32) -> None:
        """Give a node integer weights, and a bias in steps of its products, whose input has this scale."""
        weight = node.inputs[1]
        assert weight is not None
        axis = _channel_axis(node)
        if (weight, axis) not in self._weights:
            self._weights[weight, axis] = self._quantized(weight, axis)
        dequantized, scales = self._weights[weight, axis]
        node.replace_input_with(
            1, self._dequantize_before(node, dequantized, scales, axis, weight.name or "")
        )
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            self._bias(node, bias, scale * scales)

    def table(self, node: ir.Node) -> None:
        """Look up integers, each column of which has a scale."""
        (table, indices), rows = node.inputs, node.outputs[0]
        assert table is not None
        assert indices is not None
        levels, scales = self._quantized(table, 1)
        scale = self._constant(scales, f"{table.name}_scale")
        gather = self._node("Gather", [levels, indices], f"{rows.name}_quantized")
        rank = 0 if rows.shape is None else len(rows.shape)
        made = self._node(
            "DequantizeLinear", [gather.outputs[0], scale], f"{rows.name}_dequantized", axis=rank - 1
        )
        gather.outputs[0].type, made.outputs[0].type = ir.TensorType(ir.DataType.INT8), rows.type
        gather.outputs[0].shape = made.outputs[0].shape = rows.shape
        self._graph.insert_before(node, [gather, made])
        edit.replace_outputs(node, [made.outputs[0]])

    def _quantized(self, weight: ir.Value, axis: int) -> tuple[ir.Value, np.ndarray]:
        array = edit.constant(weight)
        assert array is not None
        others = tuple(i for i in range(array.ndim) if i != axis)
        scales = np.abs(array).max(axis=others).astype(np.float32) / LARGEST
        scales = np.where(scales > 0, scales, np.float32(1.0)).astype(np.float32)
        spread = scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        levels = np.clip(np.rint(array / spread), -LARGEST, LARGEST).astype(np.int8)
        return self._constant(levels, f"{weight.name}_quantized"), scales

    def _bias(self, node: ir.Node, bias: ir.Value, scales: np.ndarray) -> None:
        array = edit.constant(bias)
        if array is None or array.shape != scales.shape or attribute(node, "beta") not in (None, 1.0):
            return
        levels = np.rint(array / scales.astype(np.float64))
        if np.abs(levels).max(initial=0) > LARGEST_BIAS:
            return
        quantized = self._constant(levels.astype(np.int32), f"{bias.name}_quantized")
        node.replace_input_with(2, self._dequantize_before(node, quantized, scales, 0, bias.name or ""))

    def _dequantize_before(
        self, node: ir.Node, levels: ir.Value, scales: np.ndarray, axis: int, name: str
    ) -> ir.Value:
        scale = self._constant(scales, f"{name}_scale")
        zero = self._constant(np.zeros(scales.shape, levels.const_value.numpy().dtype), f"{name}_zero_point")  # type: ignore[union-attr]
        made = self._node("DequantizeLinear", [levels, scale, zero], f"{name}_dequantized", axis=axis)
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), levels.shape
        self._graph.insert_before(node, [made])
        return made.outputs[0]

    def _constant(self, array: np.ndarray, name: str) -> ir.Value:
        return edit.add_constant(self._graph, array, self._names.fresh(name))

    def _node(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Node:
        made = ir.node(op_type, inputs, attributes)
        made.outputs[0].name = self._names.fresh(name)
        made.name = made.outputs[0].name
        return made


def _channel_axis(node: ir.Node) -> int:
    """Along which axis of the weights output channels lie."""
    if node.op_type == "Conv":
        return 0
    rank = len(edit.tensor(node.inputs[1]).shape)  # type: ignore[union-attr]
    transposed = node.op_type == "Gemm" and bool(attribute(node, "transB"))
    return 0 if transposed else rank - 1

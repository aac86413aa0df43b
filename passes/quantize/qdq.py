"""Writes a plan into a model: QuantizeLinear and DequantizeLinear around values, integers for weights and biases.

Activations are uint8 with one scale, weights int8 around zero with a scale for each output channel, biases int32 in steps of
their products, as ONNX Runtime and OpenVINO expect them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.quantize import correct
from graphopt.passes.quantize.plan import Plan
from graphopt.passes.quantize.ranges import Parameters
from graphopt.passes.quantize.writer import Writer, along, by_channel, channel_axis

LARGEST_BIAS = 2**30

Means = Callable[[ir.Node], np.ndarray | None]
"""Of the channels of what an anchor reads; None where they are not known."""


def insert(model: ir.Model, plan: Plan, found: Mapping[ir.Value, Parameters]) -> None:
    """Change `model` in place; `found` has the parameters of the value that leads each group. Opset 13 or newer."""
    writer = Writer(model)
    dequantized = {value: _round_trip(writer, value, found[plan.group(value)]) for value in plan.values}
    for node in plan.anchors:
        assert node.inputs[0] is not None
        _quantize_weights(writer, node, found[plan.group(node.inputs[0])].scale)
    for value, readers in plan.readers.items():
        for reader in readers:
            for i, read in enumerate(reader.inputs):
                if read is value:
                    reader.replace_input_with(i, dequantized[value])
    for node in plan.tables:
        writer.table(node)


def correct_biases(model: ir.Model, plan: Plan, means: Means) -> int:
    """Take the mean of what rounding their weights changes out of the anchors of a plan, before they are quantised. Gives the
    number of those."""
    names, corrected = edit.Names(model), 0
    for node in plan.anchors:
        seen = means(node)
        if seen is not None:
            shifts = correct.shift(node, _rounding(node), seen)
            corrected += correct.subtract(model.graph, node, shifts, names)
    return corrected


def _rounding(node: ir.Node) -> np.ndarray:
    """What rounding changes the weights of an anchor by."""
    array = edit.constant(node.inputs[1])
    assert array is not None
    axis = channel_axis(node)
    levels, scales = by_channel(array, axis)
    return np.asarray(levels * along(scales, axis, array.ndim) - array)


def _round_trip(writer: Writer, value: ir.Value, parameters: Parameters) -> ir.Value:
    """What integers stand for, in place of a value."""
    scale = writer.constant(np.asarray(parameters.scale), f"{value.name}_scale")
    zero = writer.constant(np.asarray(parameters.zero), f"{value.name}_zero_point")
    down = writer.node("QuantizeLinear", [value, scale, zero], f"{value.name}_quantized")
    up = writer.node("DequantizeLinear", [down.outputs[0], scale, zero], f"{value.name}_dequantized")
    down.outputs[0].type, up.outputs[0].type = ir.TensorType(ir.DataType.UINT8), value.type
    down.outputs[0].shape = up.outputs[0].shape = value.shape
    edit.insert_behind(writer.graph, value, [down, up])
    return up.outputs[0]


def _quantize_weights(writer: Writer, node: ir.Node, scale: np.float32) -> None:
    """Give a node integer weights, and a bias in steps of its products, whose input has this scale."""
    weight = node.inputs[1]
    assert weight is not None
    axis = channel_axis(node)
    levels, scales = writer.integers(weight, axis)
    node.replace_input_with(1, writer.dequantize_before(node, levels, scales, axis, weight.name or ""))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        _quantize_bias(writer, node, bias, scale * scales)


def _quantize_bias(writer: Writer, node: ir.Node, bias: ir.Value, scales: np.ndarray) -> None:
    array = edit.constant(bias)
    if array is None or array.shape != scales.shape or attribute(node, "beta") not in (None, 1.0):
        return
    levels = np.rint(array / scales.astype(np.float64))
    if np.abs(levels).max(initial=0) > LARGEST_BIAS:
        return
    quantized = writer.constant(levels.astype(np.int32), f"{bias.name}_quantized")
    node.replace_input_with(2, writer.dequantize_before(node, quantized, scales, 0, bias.name or ""))

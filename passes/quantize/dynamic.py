"""Products on integers whose ranges are found at run time: DynamicQuantizeLinear, MatMulInteger, and floats again.

No data is needed, and no range can be wrong; finding it costs a pass over every activation. Convolutions, whose weights become
int8, and whatever else there is stay float.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.quantize.plan import Plan
from graphopt.passes.quantize.weights import store_by_channel
from graphopt.passes.quantize.writer import Writer, channel_axis, is_transposed


def dynamic_products(model: ir.Model, plan: Plan) -> None:
    """Compute the products of a plan on integers, in place. Opset 13 or newer."""
    writer = Writer(model)
    quantized: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node in plan.anchors:
        value = node.inputs[0]
        assert value is not None
        if not _is_product(node):
            store_by_channel(writer, node)
            continue
        if value not in quantized:
            quantized[value] = _quantized(writer, value)
        _replace(writer, node, quantized[value])
    for node in plan.tables:
        writer.table(node)


def _is_product(node: ir.Node) -> bool:
    """Whether a node is `x * w`, or that plus a bias."""
    if node.op_type == "MatMul":
        return True
    plain = all(attribute(node, name) in (None, 1.0) for name in ("alpha", "beta"))
    return node.op_type == "Gemm" and plain and not attribute(node, "transA")


def _quantized(writer: Writer, value: ir.Value) -> tuple[ir.Value, ...]:
    """Integers for a value, the scale and the zero point that they have this time."""
    node = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
    kinds = ("quantized", ir.DataType.UINT8), ("scale", ir.DataType.FLOAT), ("zero_point", ir.DataType.UINT8)
    for output, (kind, dtype) in zip(node.outputs, kinds, strict=True):
        output.name, output.type = writer.names.fresh(f"{value.name}_{kind}"), ir.TensorType(dtype)
        output.shape = value.shape if kind == "quantized" else ir.Shape(())
    node.name = node.outputs[0].name
    edit.insert_behind(writer.graph, value, [node])
    return tuple(node.outputs)


def _replace(writer: Writer, node: ir.Node, operand: tuple[ir.Value, ...]) -> None:
    """A product of integers, what its sums stand for, and the bias."""
    weight, (data, scale, zero) = node.inputs[1], operand
    array = edit.constant(weight)
    assert weight is not None
    assert array is not None
    levels, scales = writer.integers(weight, channel_axis(node))
    if is_transposed(node):
        rows = edit.constant(levels)
        assert rows is not None
        levels = writer.constant(np.ascontiguousarray(rows.T), f"{weight.name}_quantized")
    result, name = node.outputs[0], node.outputs[0].name
    product = writer.node("MatMulInteger", [data, levels, zero], f"{name}_sums")
    floats = writer.node("Cast", [product.outputs[0]], f"{name}_floats", to=ir.DataType.FLOAT.value)
    step = writer.node("Mul", [scale, writer.constant(scales, f"{weight.name}_scale")], f"{name}_step")
    scaled = writer.node("Mul", [floats.outputs[0], step.outputs[0]], f"{name}_scaled")
    nodes = [product, floats, step, scaled]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        nodes.append(writer.node("Add", [scaled.outputs[0], bias], f"{name}_biased"))
    nodes[-1].outputs[0].type, nodes[-1].outputs[0].shape = result.type, result.shape
    writer.graph.insert_before(node, nodes)
    edit.replace_outputs(node, [nodes[-1].outputs[0]])

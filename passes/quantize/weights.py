"""Weights alone as integers: what is computed stays float, what is stored and read is a quarter or an eighth.

int8 has a scale for each output channel; uint4 has a scale and a zero point for every block of input channels, which
DequantizeLinear knows from opset 21 on. Convolutions and tables have int8 in both.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.passes.quantize import blocks
from graphopt.passes.quantize.plan import Plan
from graphopt.passes.quantize.writer import Writer, channel_axis, is_transposed, weight_rank

BLOCK_OPSET = 21
"""From which on a scale may belong to a block, and integers may have four bits."""

Products = Callable[[ir.Node], np.ndarray | None]
"""Of all pairs of channels of what an anchor reads, summed; None where they are not known."""


def int8_weights(model: ir.Model, plan: Plan) -> None:
    """Store the weights of anchors and tables of a plan as int8. Opset 13 or newer."""
    writer = Writer(model)
    for node in plan.anchors:
        store_by_channel(writer, node)
    for node in plan.tables:
        writer.table(node)


def int4_weights(model: ir.Model, plan: Plan, size: int, products: Products = lambda node: None) -> None:
    """Store matrices as uint4 in blocks of `size` rows, the rest as int8, and so what makes an output of the model, whose errors
    nothing evens out. Opset 21 or newer."""
    writer = Writer(model)
    for node in plan.anchors:
        if is_matrix(node) and not _makes_output(node):
            _by_block(writer, node, size, products(node))
        else:
            store_by_channel(writer, node)
    for node in plan.tables:
        writer.table(node)


def is_matrix(node: ir.Node) -> bool:
    """Whether an anchor multiplies by one matrix."""
    return node.op_type != "Conv" and weight_rank(node) == 2


def _makes_output(node: ir.Node) -> bool:
    """Whether a node makes an output of the graph, but for a bias."""
    users = [user for user, _ in node.outputs[0].uses()]
    return any(value.is_graph_output() for each in (node, *users) for value in each.outputs)


def store_by_channel(writer: Writer, node: ir.Node) -> None:
    """Give an anchor int8 weights with a scale for each output channel."""
    weight, axis = node.inputs[1], channel_axis(node)
    assert weight is not None
    levels, scales = writer.integers(weight, axis)
    node.replace_input_with(1, writer.dequantize_before(node, levels, scales, axis, weight.name or ""))


def _by_block(writer: Writer, node: ir.Node, size: int, products: np.ndarray | None) -> None:
    weight = node.inputs[1]
    array = edit.constant(weight)
    assert weight is not None
    assert array is not None
    size = min(size, len(array) if not is_transposed(node) else array.shape[1])
    matrix = array.T if is_transposed(node) else array
    found = blocks.nearest(matrix, size) if products is None else blocks.reconstructed(matrix, products, size)
    levels, zeros, scales = (
        np.ascontiguousarray(part.T if is_transposed(node) else part)
        for part in (found.levels.astype(ml_dtypes.uint4), found.zeros.astype(ml_dtypes.uint4), found.scales)
    )
    name = weight.name or ""
    made = writer.node(
        "DequantizeLinear",
        [
            writer.constant(levels, f"{name}_quantized"),
            writer.constant(scales, f"{name}_scale"),
            writer.constant(zeros, f"{name}_zero_point"),
        ],
        f"{name}_dequantized",
        axis=int(is_transposed(node)),
        block_size=size,
    )
    made.outputs[0].type, made.outputs[0].shape = weight.type, weight.shape
    writer.graph.insert_before(node, [made])
    node.replace_input_with(1, made.outputs[0])

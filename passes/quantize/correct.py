"""Takes the mean of what rounding the weights of a node changes out of its results, by its bias.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, with means that were observed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute

CORRECTABLE = ("Conv", "Gemm")
"""Operators with a bias as third input; that of a MatMul is the Add behind it."""


def shift(node: ir.Node, change: np.ndarray, means: np.ndarray) -> np.ndarray:
    """What a `change` of the weights of an anchor adds to the mean of every output channel; `means` are of its input channels."""
    if node.op_type == "Conv":
        groups = attribute(node, "group") or 1
        filters = change.reshape(groups, change.shape[0] // groups, change.shape[1], -1).sum(axis=-1)
        return np.asarray(np.einsum("goi,gi->go", filters, means.reshape(groups, -1)).reshape(-1))
    transposed = node.op_type == "Gemm" and bool(attribute(node, "transB"))
    return np.asarray(means @ (change.T if transposed else change))


def has_bias(node: ir.Node, channels: int) -> bool:
    """Whether an anchor has a bias for these output channels, or can have one."""
    return _bias(node, (channels,)) is not None


def subtract(graph: ir.Graph, node: ir.Node, shifts: np.ndarray, names: edit.Names) -> bool:
    """Subtract numbers from the output channels of an anchor; False where it has no bias and can have none."""
    place = _bias(node, shifts.shape)
    if place is None:
        return False
    holder, position = place
    value = holder.inputs[position] if len(holder.inputs) > position else None
    before = np.zeros(shifts.shape, np.float32) if value is None else edit.constant(value)
    assert before is not None
    name = names.fresh(f"{node.name}_corrected_bias")
    corrected = edit.add_constant(graph, (before - shifts).astype(np.float32), name)
    holder.resize_inputs(max(len(holder.inputs), position + 1))
    holder.replace_input_with(position, corrected)
    return True


def _bias(node: ir.Node, shape: tuple[int, ...]) -> tuple[ir.Node, int] | None:
    """The node that adds the bias of an anchor, and the input which is that bias or may become one."""
    if node.op_type in CORRECTABLE:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        plain = all(attribute(node, name) in (None, 1.0) for name in ("alpha", "beta"))
        return (node, 2) if plain and (bias is None or _has_shape(bias, shape)) else None
    users = list(node.outputs[0].uses())
    if len(users) != 1 or users[0].node.op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    add, other = users[0].node, 1 - users[0].idx
    return (add, other) if _has_shape(add.inputs[other], shape) else None


def _has_shape(value: ir.Value | None, shape: tuple[int, ...]) -> bool:
    """Whether a value is a constant of this shape."""
    array = edit.constant(value)
    return array is not None and array.shape == shape

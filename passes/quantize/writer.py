"""What every way of quantising writes into a graph: integer constants, and nodes with names of their own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute

LARGEST = 127
"""Of the integers of weights: -128 is left out, so that they are symmetric."""


class Writer:
    """Adds nodes and constants to one graph."""

    def __init__(self, model: ir.Model) -> None:
        self.graph, self.names = model.graph, edit.Names(model)
        self._weights: dict[tuple[ir.Value, int], tuple[ir.Value, np.ndarray]] = {}

    def integers(self, weight: ir.Value, axis: int) -> tuple[ir.Value, np.ndarray]:
        """int8 levels of a constant, and a float32 scale for each channel along an axis; made once."""
        if (weight, axis) not in self._weights:
            array = edit.constant(weight)
            assert array is not None
            levels, scales = by_channel(array, axis)
            self._weights[weight, axis] = self.constant(levels, f"{weight.name}_quantized"), scales
        return self._weights[weight, axis]

    def table(self, node: ir.Node) -> None:
        """Make a Gather look up integers, each column of which has a scale."""
        (table, indices), rows = node.inputs, node.outputs[0]
        assert table is not None
        assert indices is not None
        levels, scales = self.integers(table, 1)
        scale = self.constant(scales, f"{table.name}_scale")
        gather = self.node("Gather", [levels, indices], f"{rows.name}_quantized")
        rank = 0 if rows.shape is None else len(rows.shape)
        made = self.node(
            "DequantizeLinear", [gather.outputs[0], scale], f"{rows.name}_dequantized", axis=rank - 1
        )
        gather.outputs[0].type, made.outputs[0].type = ir.TensorType(ir.DataType.INT8), rows.type
        gather.outputs[0].shape = made.outputs[0].shape = rows.shape
        self.graph.insert_before(node, [gather, made])
        edit.replace_outputs(node, [made.outputs[0]])

    def dequantize_before(
        self, node: ir.Node, levels: ir.Value, scales: np.ndarray, axis: int, name: str
    ) -> ir.Value:
        """What integers around zero stand for, with a scale for each channel along an axis."""
        assert levels.const_value is not None
        zeros = np.zeros(scales.shape, levels.const_value.numpy().dtype)
        parameters = self.constant(scales, f"{name}_scale"), self.constant(zeros, f"{name}_zero_point")
        made = self.node("DequantizeLinear", [levels, *parameters], f"{name}_dequantized", axis=axis)
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), levels.shape
        self.graph.insert_before(node, [made])
        return made.outputs[0]

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """An initializer."""
        return edit.add_constant(self.graph, array, self.names.fresh(name))

    def node(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Node:
        """A node that is in no graph yet."""
        made = ir.node(op_type, inputs, attributes)
        made.outputs[0].name = self.names.fresh(name)
        made.name = made.outputs[0].name
        return made


def by_channel(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 levels, and the float32 scale of each channel along an axis that maps its largest element to `LARGEST`."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    scales = np.abs(array).max(axis=others).astype(np.float32) / LARGEST
    scales = np.where(scales > 0, scales, np.float32(1.0)).astype(np.float32)
    levels = np.clip(np.rint(array / along(scales, axis, array.ndim)), -LARGEST, LARGEST)
    return levels.astype(np.int8), scales


def along(scales: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Scales of channels, as an array that broadcasts against all of them."""
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)])


def channel_axis(node: ir.Node) -> int:
    """Along which axis of the weights of an anchor its output channels lie."""
    if node.op_type == "Conv":
        return 0
    return 0 if is_transposed(node) else weight_rank(node) - 1


def is_transposed(node: ir.Node) -> bool:
    """Whether the weights of an anchor have a row for each output channel."""
    return node.op_type == "Gemm" and bool(attribute(node, "transB"))


def weight_rank(node: ir.Node) -> int:
    """Of the weights of an anchor."""
    weight = edit.tensor(node.inputs[1])
    assert weight is not None
    return len(weight.shape)

"""Which weights can have zeros, and every layer as matrices `[groups, rows, outputs]`: a row meets one input at one place of the window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute

WEIGHT_INPUT = 1
ANCHORS = ("Conv", "Gemm", "MatMul")

FORM = ("group", "kernel_shape", "strides", "dilations", "pads", "auto_pad", "transA", "transB")
"""The attributes that say how weights are read."""


@dataclass(frozen=True)
class Layer:
    """Constant float32 weights, and the nodes that multiply by them, all in the same way."""

    weight: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def name(self) -> str:
        """Of the first node."""
        return self.nodes[0].name or self.weight.name or ""

    @property
    def groups(self) -> int:
        return int(attribute(self.nodes[0], "group") or 1)

    @property
    def rows(self) -> int:
        """Of each matrix."""
        weight = edit.tensor(self.weight)
        assert weight is not None
        return weight.size // (self.groups * self.outputs)

    @property
    def outputs(self) -> int:
        """Of each matrix."""
        weight = edit.tensor(self.weight)
        assert weight is not None
        axis = 0 if self.nodes[0].op_type == "Conv" or self._is_transposed else 1
        return weight.shape.numpy()[axis] // self.groups

    def matrices(self) -> np.ndarray:
        """The weights, rows of a window place by place and channels last: `[groups, rows, outputs]` float64, a copy."""
        array = edit.constant(self.weight)
        assert array is not None
        if self.nodes[0].op_type != "Conv":
            return (array.T if self._is_transposed else array)[None].astype(np.float64)
        split = array.reshape(self.groups, -1, *array.shape[1:])
        rows = np.moveaxis(np.moveaxis(split, 1, -1), 1, -2)
        return rows.reshape(self.groups, -1, split.shape[1]).astype(np.float64)

    def write(self, matrices: np.ndarray) -> None:
        """Give the layer other weights, of the form of `matrices`."""
        before = edit.constant(self.weight)
        assert before is not None
        array = self._restored(matrices, before.shape).astype(before.dtype)
        self.weight.const_value = ir.Tensor(np.ascontiguousarray(array), name=self.weight.name)

    def _restored(self, matrices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if self.nodes[0].op_type != "Conv":
            return np.asarray(matrices[0].T if self._is_transposed else matrices[0])
        rows = matrices.reshape(self.groups, *shape[2:], shape[1], -1)
        return np.moveaxis(np.moveaxis(rows, -1, 1), -1, 2).reshape(shape)

    @property
    def _is_transposed(self) -> bool:
        return bool(attribute(self.nodes[0], "transB"))


def find_layers(
    graph: ir.Graph, excluded: Callable[[ir.Node], bool] = lambda node: False
) -> tuple[list[Layer], dict[str, str]]:
    """The layers of a graph, and the nodes that could have been some, with the reasons why they are not."""
    by_weight: dict[ir.Value, list[ir.Node]] = {}
    left_out: dict[str, str] = {}
    for node in graph:
        if node.domain != "" or node.op_type not in ANCHORS:
            continue
        reason = "excluded" if excluded(node) else _why_not(node)
        if reason:
            left_out[node.name or node.op_type] = reason
            continue
        weight = node.inputs[WEIGHT_INPUT]
        assert weight is not None
        by_weight.setdefault(weight, []).append(node)
    layers = []
    for weight, nodes in by_weight.items():
        if _is_read_otherwise(weight, nodes):
            left_out.update(
                {node.name or node.op_type: "its weights are read otherwise too" for node in nodes}
            )
        else:
            layers.append(Layer(weight, tuple(nodes)))
    return layers, left_out


def _why_not(node: ir.Node) -> str:
    """Why a node keeps its weights; empty if it need not."""
    weight = edit.tensor(node.inputs[WEIGHT_INPUT])
    if weight is None:
        return "its weights are computed at run time"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weights are {weight.dtype.name}"
    if not weight.size:
        return "it has no weights"
    if edit.tensor(node.inputs[0]) is not None:
        return "its input is constant"
    if node.op_type == "Conv":
        return "it is depthwise" if weight.shape[1] == 1 and attribute(node, "group") != 1 else ""
    return "" if len(weight.shape) == 2 else "its weights are no matrix"


def _is_read_otherwise(weight: ir.Value, nodes: list[ir.Node]) -> bool:
    """Whether somebody reads weights in another way than the first of these nodes."""
    forms = {(node.op_type, *(attribute(node, name) for name in FORM)) for node in nodes}
    others = any(user not in nodes or index != WEIGHT_INPUT for user, index in weight.uses())
    return others or weight.is_graph_output() or len(forms) > 1

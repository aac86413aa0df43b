"""A thin writer of ONNX graphs: one call per node, constants become named initializers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class Graph:
    """Collects nodes and initializers; ``model`` closes the graph."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> str:
        """Declare a graph input and return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def constant(self, name: str, value: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """Add an initializer and return its name."""
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, name: str, value: ArrayLike) -> str:
        """Add an int64 initializer: axes, shapes, indices."""
        return self.constant(name, value, np.int64)

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output that is called like the node, and return that name."""
        return self.add_many(op, inputs, name, [name], **attributes)[0]

    def add_many(
        self, op: str, inputs: Sequence[str], name: str, outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        self._nodes.append(
            helper.make_node(op, list(inputs), list(outputs), name=f"node_{name}", **attributes)
        )
        return list(outputs)

    def model(self, output: str, shape: Sequence[int | str]) -> onnx.ModelProto:
        """A checked model with one float output."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            self._inputs,
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, list(shape))],
            self._initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        model.producer_name = "graphopt-models"
        onnx.checker.check_model(model, full_check=True)
        return model

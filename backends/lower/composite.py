"""Lowers a node as a small graph of standard operators, built for the shapes at hand and never part of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.nodes import lower_inner_nodes
from graphopt.backends.lower.operator import Lowered, Refused, attribute
from graphopt.backends.tensor import Tensor
from graphopt.model.inference import infer_shapes

OPSET = 21
"""The opset of the operators a composite is made of."""

IR_VERSION = 10


class Composite:
    """Builds the graph: calling it adds an operator and gives its output; arrays and numbers become constants."""

    def __init__(self, ctx: Lowering, node: ir.Node) -> None:
        self.ctx = ctx
        self.node = node
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, "graphopt": 1}, name="composite")
        self.tensors: dict[ir.Value, Tensor] = {}
        self.inputs = [None if value is None else self.bind(ctx.tensor(value)) for value in node.inputs]

    def bind(self, tensor: Tensor) -> ir.Value:
        """A tensor that is lowered already, as an operand."""
        name = f"input{len(self.tensors)}"
        dtype = ir.DataType.from_numpy(np.dtype(tensor.dtype))
        value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        self.tensors[value] = tensor
        return value

    def input(self, position: int) -> ir.Value | None:
        """An input of the node, or None where it is absent."""
        return self.inputs[position] if position < len(self.inputs) else None

    def required(self, position: int) -> ir.Value:
        """An input of the node that must be there."""
        value = self.input(position)
        if value is None:
            raise Refused(f"its input {position} is missing")
        return value

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return attribute(self.node, name, default)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of an input of the node."""
        return self.tensors[value].shape

    def dtype(self, value: ir.Value) -> str:
        """The dtype of an input of the node."""
        return self.tensors[value].dtype

    def constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        """Compile-time data as an operand."""
        name = f"constant{len(self.graph.initializers)}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def __call__(self, op: str, *operands: Any, domain: str = "", **attributes: Any) -> ir.Value:
        """The output of a new operator."""
        return self.several(op, 1, *operands, domain=domain, **attributes)[0]

    def several(
        self, op: str, outputs: int, *operands: Any, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """All outputs of a new operator."""
        values = [self._operand(operand) for operand in operands]
        count = len(self.graph)
        results = [ir.Value(name=f"{op}{count}_{i}") for i in range(outputs)]
        given = ir.convenience.convert_attributes(attributes)
        self.graph.append(
            ir.Node(domain, op, values, given, outputs=results, name=f"{self.node.name}/{op}{count}")
        )
        return results

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """`value` with another shape."""
        return self("Reshape", value, np.array(shape, np.int64), allowzero=1)

    def transpose(self, value: ir.Value, *order: int) -> ir.Value:
        """`value` with its axes in another order."""
        return self("Transpose", value, perm=list(order))

    def unsqueeze(self, value: ir.Value, *axes: int) -> ir.Value:
        """`value` with new axes of extent 1."""
        return self("Unsqueeze", value, np.array(axes, np.int64))

    def slice(self, value: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        """The elements from `start` to `end` along an axis."""
        return self("Slice", value, *(np.array([number], np.int64) for number in (start, end, axis)))

    def split(self, value: ir.Value, axis: int, sizes: Sequence[int]) -> Sequence[ir.Value]:
        """Consecutive parts along an axis."""
        return self.several("Split", len(sizes), value, np.array(sizes, np.int64), axis=axis)

    def lower(
        self, results: Sequence[ir.Value | None], outputs: Sequence[ir.Value] = ()
    ) -> list[Tensor | None]:
        """The tensors of some of its values; where these are `outputs` of the model, computed straight into them."""
        ctx, aliases = self.ctx, list(zip(results, outputs, strict=False))
        self.graph.outputs.extend(dict.fromkeys(value for value in results if value is not None))
        infer_shapes(ir.Model(self.graph, ir_version=IR_VERSION))
        outer_opsets, ctx.opsets = ctx.opsets, self.graph.opset_imports
        ctx.values.update(self.tensors)
        for inner, outer in aliases:
            if inner is not None and outer in ctx.outputs and inner not in self.tensors:
                ctx.outputs[inner] = None
        try:
            lower_inner_nodes(ctx, self.graph, f"as {self.node.op_type} is computed")
        finally:
            ctx.opsets = outer_opsets
        for inner, outer in aliases:
            if inner in ctx.outputs and outer in ctx.outputs:
                ctx.outputs[outer] = ctx.outputs.pop(inner)
        return [None if value is None else ctx.tensor(value) for value in results]

    def _operand(self, operand: Any) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        return self.constant(np.asarray(operand))


Build = Callable[[Composite], Sequence[ir.Value | None]]


def composite(build: Build) -> Lowered:
    """An operator that `build` expresses by others: it gives the value of every output of the node."""

    def lower(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
        made = Composite(ctx, node)
        return made.lower(build(made), node.outputs)

    return Lowered(lower)

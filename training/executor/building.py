"""From an ONNX graph to a program: every node is looked at once, and whatever is missing is listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch

from graphopt.errors import UnsupportedError, UnsupportedNode
from graphopt.model import edit
from graphopt.model.attributes import opset
from graphopt.training.executor.control import captured
from graphopt.training.executor.operator import DTYPES, Node, Refused, Tensor, torch_dtype
from graphopt.training.executor.program import ABSENT, Program, Step
from graphopt.training.executor.quantisation import CARRIERS, level_type
from graphopt.training.executor.table import OPERATORS, WITH_BATCH_STATISTICS


def build(graph: ir.Graph, single: torch.dtype) -> Program:
    """The program of a graph in normal form; `single` is computed with in place of float32.

    Raises UnsupportedError, which lists every node that cannot be computed, with the reason.
    """
    refused: list[UnsupportedNode] = []
    program = _Builder(single, refused).program(graph)
    if refused:
        raise UnsupportedError(refused)
    return program


def to_tensor(constant: ir.TensorProtocol, single: torch.dtype) -> Tensor:
    """A copy of a constant. Raises Refused where torch has no such elements."""
    dtype = torch_dtype(constant.dtype, single)
    array = constant.numpy()
    if constant.dtype in WIDENED:
        array = array.astype(WIDENED[constant.dtype])
    return torch.from_numpy(array.copy()).to(dtype)


WIDENED = {
    ir.DataType.BFLOAT16: "float32",
    ir.DataType.INT4: "int8",
    ir.DataType.UINT4: "uint8",
}
"""Elements that numpy has no type of its own for -> the numpy type that holds them on their way to torch."""


class _Builder:
    """Makes steps, and collects what is refused."""

    def __init__(self, single: torch.dtype, refused: list[UnsupportedNode]) -> None:
        self._single, self._refused = single, refused

    def program(self, graph: ir.Graph) -> Program:
        """The steps of a graph, apart from those that are refused."""
        steps: list[Step] = []
        levels: dict[str, torch.dtype] = {}
        for node in graph:
            try:
                seen = self._seen(node)
                steps.append(_step(node, seen))
                levels.update(_levels(steps[-1], seen, levels))
            except Refused as reason:
                refusal = UnsupportedNode(node.name or "", node.op_type, node.domain, str(reason))
                self._refused.append(refusal)
        return Program(steps, _names(graph.outputs), levels)

    def _seen(self, node: ir.Node) -> Node:
        branches = {attribute.name: self.program(attribute.as_graph()) for attribute in _branches(node)}
        for value in node.inputs:
            constant = edit.tensor(value)
            if constant is not None:
                torch_dtype(constant.dtype, self._single)
        return Node(
            node.op_type,
            opset(node),
            len(node.outputs),
            max((i for i, value in enumerate(node.outputs) if not edit.is_unused(value)), default=0),
            [None if value is None else _type_of(value) for value in node.inputs],
            self._single,
            dict(self._attributes(node)),
            branches,
        )

    def _attributes(self, node: ir.Node) -> Iterator[tuple[str, Any]]:
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR:
                yield name, to_tensor(attribute.as_tensor(), self._single)
            elif attribute.type != ir.AttributeType.GRAPH:
                yield name, attribute.value


def _step(node: ir.Node, seen: Node) -> Step:
    """Raises Refused where the table lacks the operator, or its maker refuses the node."""
    if node.domain not in STANDARD or node.op_type not in OPERATORS:
        raise Refused("this operator is not supported")
    compute = OPERATORS[node.op_type](seen)
    variant = WITH_BATCH_STATISTICS.get(node.op_type)
    learning = compute if variant is None else variant(seen)
    inputs = [*_names(node.inputs), *captured(seen)]
    return Step(node.name or "", node.op_type, inputs, _names(node.outputs), compute, learning)


STANDARD = ("", "ai.onnx")
"""Names of the standard domain."""


def _levels(step: Step, seen: Node, known: Mapping[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Which outputs are integers that are held as floats: those of QuantizeLinear, and what is made of their elements."""
    dtype: torch.dtype | None = None
    if step.op == "QuantizeLinear":
        dtype = DTYPES[level_type(seen)]
    elif step.op in CARRIERS:
        dtype = next((known[name] for name in step.inputs if name in known), None)
    return {} if dtype is None else dict.fromkeys(step.outputs, dtype)


def _names(values: Iterable[ir.Value | None]) -> tuple[str, ...]:
    return tuple(ABSENT if value is None else value.name or ABSENT for value in values)


def _branches(node: ir.Node) -> Iterator[ir.Attr]:
    return (each for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH)


def _type_of(value: ir.Value) -> ir.DataType | None:
    constant = edit.tensor(value)
    return value.dtype if constant is None else constant.dtype

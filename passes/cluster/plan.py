"""Which constants of a model are weights that may share values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.model import edit
from graphopt.model.attributes import attribute

WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DequantizeLinear": (0,),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}
"""Operators, and which of their inputs are weights where they are constant."""

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators whose results are sums of what their first input holds, multiplied by weights."""

LEAST = 1024
"""Elements from which a tensor is worth a codebook."""


@dataclass(frozen=True)
class Target:
    """A constant of two dimensions or more, float32 or int8 with a scale, its readers, and the axis of its output channels."""

    value: ir.Value
    readers: list[ir.Node]
    axis: int

    @property
    def name(self) -> str:
        """That of the constant."""
        return self.value.name or ""

    @property
    def is_integer(self) -> bool:
        """Whether it stays int8, with fewer levels."""
        return self.value.dtype == ir.DataType.INT8

    @property
    def array(self) -> np.ndarray:
        """Its content as float32. Raises ModelError if that is not finite."""
        found = edit.constant(self.value)
        assert found is not None
        if not np.isfinite(found).all():
            raise ModelError(f"the weights {self.name!r} hold NaN or infinity: they have no clusters")
        return found.astype(np.float32, copy=False)

    @property
    def product(self) -> ir.Node | None:
        """The node that multiplies its first input by this matrix, or by these filters, if nothing else reads them."""
        use = _sole_use(self.value)
        if use is not None and use[0].op_type == "DequantizeLinear":
            use = _sole_use(use[0].outputs[0])
        if use is None or use[0].op_type not in PRODUCTS or use[1] != 1:
            return None
        node, rank = use[0], 0 if self.value.shape is None else len(self.value.shape)
        plain = node.op_type == "Conv" or (rank == 2 and not attribute(node, "transA"))
        return node if plain and edit.tensor(node.inputs[0]) is None else None


def _sole_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    """The only node that reads a value, and as which input."""
    uses = [(use.node, use.idx) for use in value.uses()]
    return uses[0] if len(uses) == 1 and not value.is_graph_output() else None


@dataclass(frozen=True)
class Plan:
    """What shares values, in the order of the model, and why the rest does not, by the names of nodes."""

    targets: list[Target] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def make_plan(model: ir.Model, excluded: Callable[[ir.Node], bool] = lambda node: False) -> Plan:
    """All weights of the main graph apart from those that an `excluded` node reads."""
    plan, seen = Plan(), set[ir.Value]()
    for node in model.graph:
        for position in WEIGHTS.get(node.op_type, ()) if node.domain == "" else ():
            value = node.inputs[position] if position < len(node.inputs) else None
            if value is None or edit.tensor(value) is None or value in seen:
                continue
            seen.add(value)
            readers = list(dict.fromkeys(use.node for use in value.uses()))
            reason = _why_not(value, readers, excluded)
            if reason:
                plan.left_out[node.name or value.name or ""] = reason
            else:
                plan.targets.append(Target(value, readers, _axis(value)))
    return plan


def _why_not(value: ir.Value, readers: list[ir.Node], excluded: Callable[[ir.Node], bool]) -> str:
    tensor = edit.tensor(value)
    assert tensor is not None
    if any(excluded(node) for node in readers):
        return "excluded"
    integer = readers[0].op_type == "DequantizeLinear"
    if tensor.dtype != (ir.DataType.INT8 if integer else ir.DataType.FLOAT):
        return f"its weights are {tensor.dtype.name}"
    if tensor.size < LEAST or len(tensor.shape) < 2:
        return f"it has {tensor.size} weights"
    return "its weights are an output" if value.is_graph_output() else ""


def _axis(value: ir.Value) -> int:
    """Along which output channels lie: the last one of matrices, apart from transposed ones, and the first one of all else."""
    node, position = next(iter(value.uses()))
    if node.op_type == "DequantizeLinear" and node.outputs[0].uses():
        node, position = next(iter(node.outputs[0].uses()))
    matrix = node.op_type in ("Gemm", "MatMul") and position == 1
    return int(matrix and not attribute(node, "transB"))

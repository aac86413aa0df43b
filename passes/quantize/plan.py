"""Which nodes compute on integers, and which values have to be integers for that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute

WEIGHT_INPUT = 1
ANCHORS = ("Conv", "Gemm", "MatMul")
"""Operators whose products are computed on integers, where their weights are constant."""

MOVERS = (
    "Concat", "DepthToSpace", "Flatten", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that give back elements of their inputs: integers pass through them, with one range before and behind."""


TABLE = 1 << 14
"""Elements from which a table is stored as integers."""


@dataclass
class Plan:
    """The nodes that compute on integers; the values that are integers, in groups of one range; and for each value those who
    read its integers."""

    anchors: list[ir.Node] = field(default_factory=list)
    tables: list[ir.Node] = field(default_factory=list)
    """Gathers from tables that are stored as integers; what they give is float at once."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Nodes that could have been anchors -> why they are none."""
    readers: defaultdict[ir.Value, list[ir.Node]] = field(default_factory=lambda: defaultdict(list))
    _leader: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def values(self) -> list[ir.Value]:
        """All that become integers."""
        return list(self._leader)

    def group(self, value: ir.Value) -> ir.Value:
        """The value that stands for all that share its range."""
        leader = self._leader[value]
        return value if leader is value else self.group(leader)

    def add(self, value: ir.Value) -> bool:
        """Make a value integer; False if it is already."""
        if value in self._leader:
            return False
        self._leader[value] = value
        return True

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """`new` is integer instead of `old`, which shares its range with no other."""
        del self._leader[old]
        self._leader[new] = new
        self.readers[new] = self.readers.pop(old)

    def join(self, first: ir.Value, second: ir.Value) -> None:
        """Two values share one range from now on."""
        self._leader[self.group(second)] = self.group(first)


def make_plan(graph: ir.Graph, excluded: Callable[[ir.Node], bool] = lambda node: False) -> Plan:
    """Everything that can be on integers and is not `excluded`."""
    plan = Plan()
    for node in graph:
        if node.op_type not in ANCHORS or node.domain != "":
            continue
        reason = _why_not(node, excluded)
        if reason:
            plan.left_out[node.name or node.outputs[0].name or node.op_type] = reason
            continue
        plan.anchors.append(node)
        assert node.inputs[0] is not None
        _quantize_value(plan, node.inputs[0], node)
    plan.tables = [node for node in graph if _reads_table(node) and not excluded(node)]
    for node in graph:
        if node.op_type == "Add" and node.domain == "":
            _quantize_residual(plan, node)
    return plan


def _why_not(node: ir.Node, excluded: Callable[[ir.Node], bool]) -> str:
    """Why a node stays on floats; empty if it need not."""
    if excluded(node):
        return "excluded"
    weight = edit.tensor(node.inputs[WEIGHT_INPUT])
    if weight is None:
        return "its weights are computed at run time"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weights are {weight.dtype.name}"
    if node.op_type != "Conv" and len(weight.shape) != 2:
        return "its weights are no matrix"
    if edit.tensor(node.inputs[0]) is not None:
        return "its input is constant"
    return ""


def _reads_table(node: ir.Node) -> bool:
    """Whether a node looks up rows of a constant float matrix that are worth it."""
    if (node.domain, node.op_type) != ("", "Gather") or attribute(node, "axis") not in (None, 0):
        return False
    table = edit.tensor(node.inputs[0])
    return (
        table is not None
        and table.dtype == ir.DataType.FLOAT
        and len(table.shape) == 2
        and table.size >= TABLE
    )


def _quantize_value(plan: Plan, value: ir.Value, reader: ir.Node) -> None:
    """Make a value integer for a reader, and all that it consists of."""
    if reader not in plan.readers[value]:
        plan.readers[value].append(reader)
    if not plan.add(value):
        return
    mover = value.producer()
    if mover is None or mover.op_type not in MOVERS or mover.domain != "":
        return
    moved = list(mover.inputs) if mover.op_type == "Concat" else mover.inputs[:1]
    if any(source is None or edit.tensor(source) is not None for source in moved):
        return
    for source in moved:
        assert source is not None
        _quantize_value(plan, source, mover)
        plan.join(value, source)


def _quantize_residual(plan: Plan, node: ir.Node) -> None:
    """An Add behind a convolution reads the integers of its other operand, where those are there anyway."""
    for value, other in (node.inputs, node.inputs[::-1]):
        producer = None if other is None else other.producer()
        if value in plan.values and producer in plan.anchors and producer.op_type == "Conv":
            plan.readers[value].append(node)
            return

"""Rounds what convolutions and products multiply to halves, bfloat16 or float16, in standard operators that any runtime reads.

Cast to halves and back stands where activations are rounded; weights are rounded as they are. Sums and all else stay float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pipeline import Context, Outcome

ANCHORS = ("Conv", "Gemm", "MatMul")
WEIGHT_INPUT = 1

MOVERS = ("Concat", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give back elements of their inputs: they move halves, if nobody else wants floats of them."""

RESIDUALS = ("Add", "Sum")

LEAST_OPSET = 13
"""From which on Cast knows bfloat16."""

RULE = "round operands"


@dataclass(frozen=True)
class Precision:
    """Rounds activations and constant weights of convolutions and products to `half`, where the target gains from it.

    `exclude` are patterns of names and operators that stay float32.
    """

    name: ClassVar[str] = "precision"
    exclude: tuple[str, ...] = ()
    half: ir.DataType = ir.DataType.BFLOAT16

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Works on the main graph; loops and branches stay float32."""
        reasons = {node: self._why_not(node, context) for node in model.graph if self._is_anchor(node)}
        chosen = [node for node, reason in reasons.items() if not reason]
        refused = Counter((RULE, reason) for reason in reasons.values() if reason)
        if chosen and model.opset_imports.get("", 0) < LEAST_OPSET:
            return Outcome(
                refused=Counter({(RULE, f"opset {LEAST_OPSET} brings {self.half.name.lower()}"): len(chosen)})
            )
        writer = _Writer(model, self.half)
        for value, readers in _by_operand(chosen).items():
            writer.round(value, readers)
        for node in chosen:
            writer.round_weights(node)
        return Outcome(bool(chosen), Counter({RULE: len(chosen)} if chosen else {}), refused)

    def _why_not(self, node: ir.Node, context: Context) -> str:
        """Why a node stays on float32; empty if it need not."""
        if any(
            fnmatchcase(node.name or "", each) or fnmatchcase(node.op_type, each) for each in self.exclude
        ):
            return "excluded"
        weight = edit.tensor(node.inputs[WEIGHT_INPUT])
        if weight is None:
            return "weights computed at run time"
        if weight.dtype != ir.DataType.FLOAT:
            return "weights of another type"
        if edit.tensor(node.inputs[0]) is not None:
            return "a constant input"
        with np.errstate(over="ignore"):
            rounded = weight.numpy().astype(self.half.numpy())
        if not np.isfinite(rounded).all():
            return f"weights beyond {self.half.name.lower()}"
        return "" if context.gains(node) else "nothing to gain"

    def _is_anchor(self, node: ir.Node) -> bool:
        """Whether a node could have its operands rounded, and has not yet."""
        return node.op_type in ANCHORS and node.domain == "" and not self._is_rounded(node.inputs[0])

    def _is_rounded(self, value: ir.Value | None) -> bool:
        cast = None if value is None else value.producer()
        if cast is None or cast.op_type != "Cast" or cast.inputs[0] is None:
            return False
        return cast.inputs[0].dtype == self.half


def _by_operand(nodes: Sequence[ir.Node]) -> dict[ir.Value, list[ir.Node]]:
    """The values that nodes multiply with weights, each with those nodes."""
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        assert node.inputs[0] is not None
        readers.setdefault(node.inputs[0], []).append(node)
    return readers


def _residuals(value: ir.Value, readers: Sequence[ir.Node]) -> list[ir.Node]:
    """Additions that read the rounded value too, where after that nobody wants the other: it is never stored then."""
    others = [user for user, _ in value.uses() if user not in readers]
    alone = not value.is_graph_output() and all(
        user.op_type in RESIDUALS and user.domain == "" for user in others
    )
    return others if alone else []


@dataclass
class _Writer:
    """Adds nodes and constants to the main graph of a model."""

    model: ir.Model
    half: ir.DataType
    halves: dict[ir.Value, ir.Value] = field(default_factory=dict)
    weights: dict[ir.Value, ir.Value] = field(default_factory=dict)
    names: edit.Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = edit.Names(self.model)

    def round(self, value: ir.Value, readers: Sequence[ir.Node]) -> None:
        """Let readers, and residual additions, read a value rounded."""
        readers = [*readers, *_residuals(value, readers)]
        places = [(user, i) for user, i in value.uses() if user in readers]
        rounded = self._cast(self._halves_of(value, readers), ir.DataType.FLOAT)
        for user, i in places:
            user.replace_input_with(i, rounded)

    def round_weights(self, node: ir.Node) -> None:
        """Give a node weights that halves hold."""
        weight = node.inputs[WEIGHT_INPUT]
        assert weight is not None
        if weight not in self.weights:
            array = edit.constant(weight)
            assert array is not None
            rounded = array.astype(self.half.numpy()).astype(np.float32)
            name = self.names.fresh(f"{weight.name}_rounded")
            self.weights[weight] = edit.add_constant(self.model.graph, rounded, name)
        node.replace_input_with(WEIGHT_INPUT, self.weights[weight])
        if edit.is_unused(weight):
            edit.drop_initializer(weight)

    def _halves_of(self, value: ir.Value, readers: Sequence[ir.Node]) -> ir.Value:
        """A value as halves. What only moves elements for these readers moves halves from now on."""
        if value not in self.halves:
            moved = _moved(value, readers)
            for i, source in moved:
                mover = value.producer()
                assert mover is not None
                mover.replace_input_with(i, self._halves_of(source, [mover]))
            if moved:
                value.type = ir.TensorType(self.half)
            self.halves[value] = value if moved else self._cast(value, self.half)
        return self.halves[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        made = ir.node("Cast", [value], {"to": dtype.value})
        result = made.outputs[0]
        result.name = made.name = self.names.fresh(f"{value.name}_{dtype.name.lower()}")
        result.type, result.shape = ir.TensorType(dtype), value.shape
        edit.insert_behind(self.model.graph, value, [made])
        return result


def _moved(value: ir.Value, readers: Sequence[ir.Node]) -> list[tuple[int, ir.Value]]:
    """The inputs, with their positions, whose elements a value consists of; none where it is computed, or others read it too."""
    mover = value.producer()
    if mover is None or mover.op_type not in MOVERS or mover.domain != "" or value.is_graph_output():
        return []
    if any(user not in readers for user, _ in value.uses()):
        return []
    count = len(mover.inputs) if mover.op_type == "Concat" else 1
    found = [(i, source) for i, source in enumerate(mover.inputs[:count]) if source is not None]
    return [] if any(edit.tensor(source) is not None for _, source in found) else found

"""Rounds what convolutions and products multiply, in operators that any runtime reads or that `Expand` writes as such.

Cast to bfloat16 or float16 and back stands where activations are rounded, or `RoundToTF32`, whose results are float32; weights are
rounded as they are. Sums and all else stay float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.movers import MOVERS, VIEWS, moved_inputs
from graphopt.passes.expand import ROUND_TF32, TF32_SPLITTER
from graphopt.passes.fuse.emit import DOMAIN
from graphopt.passes.held import RESIDUALS, Held
from graphopt.rewriting.pipeline import Context, Outcome

OPERANDS = {("", name): 2 for name in ("Conv", "Gemm", "MatMul")} | {
    (domain, "Attention"): 3 for domain in ("", DOMAIN)
}
"""How many of the first inputs of a node are multiplied."""

WEIGHT_INPUT = 1

LEAST_OPSET = 13
"""From which on Cast knows bfloat16."""

RULE = "round operands"


@dataclass(frozen=True)
class Half:
    """A precision of operands: operators that only move it, and whether operands are rounded that no weights are multiplied with."""

    name: str
    dtype: ir.DataType
    """Of what was rounded to it."""
    movers: tuple[str, ...]
    without_weights: bool
    largest: float
    """The largest finite number."""
    roundoff: float
    """The relative error of a product's operand: half of the largest of rounding, about its root mean square."""
    attends: bool = True
    """Whether attention multiplies it as well."""


BFLOAT16 = Half("bfloat16", ir.DataType.BFLOAT16, VIEWS, False, float.fromhex("0x1.fep127"), 2.0**-9)
FLOAT16 = Half("float16", ir.DataType.FLOAT16, VIEWS, False, 65504.0, 2.0**-12)
FLOAT16_EVERYWHERE = replace(FLOAT16, movers=MOVERS, without_weights=True, roundoff=2.0**-11)
"""Of GPUs. What comes out of one product is rounded on the way to the next, hence twice the error."""
BFLOAT16_EVERYWHERE = replace(
    BFLOAT16, movers=(*VIEWS, "Slice", "Split"), without_weights=True, roundoff=2.0**-8
)
TF32_EVERYWHERE = Half(
    "tf32",
    ir.DataType.FLOAT,
    MOVERS,
    True,
    float.fromhex("0x1.fffffep127") / TF32_SPLITTER,
    2.0**-11,
    attends=False,
)
"""float32 of 11 significant bits, as many as those of float16, in the range of float32."""

MAY_TAKE_HALVES = (*MOVERS, *RESIDUALS)
"""Operators besides products that may read halves."""


@dataclass(frozen=True)
class Precision:
    """Rounds activations and constant weights of convolutions and products to `half`, where the target gains from it.

    `exclude` are patterns of names and operators that stay float32, `too_large` names of values that `half` cannot hold.
    """

    name: ClassVar[str] = "precision"
    exclude: tuple[str, ...] = ()
    half: Half = BFLOAT16
    too_large: frozenset[str] = frozenset()

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Works on the main graph; loops and branches stay float32."""
        reasons = {node: self._why_not(node, context) for node in model.graph if self._is_open(node)}
        chosen = [node for node, reason in reasons.items() if not reason]
        refused = Counter((RULE, reason) for reason in reasons.values() if reason)
        if chosen and model.opset_imports.get("", 0) < LEAST_OPSET:
            return Outcome(
                refused=Counter({(RULE, f"opset {LEAST_OPSET} brings {self.half.name}"): len(chosen)})
            )
        writer = _Writer(model, self.half, self._held(model, chosen))
        readers = _by_operand(chosen)
        for value in [*readers, *(value for value in writer.held.in_order() if value not in readers)]:
            writer.round(value, readers.get(value, []))
        for node in chosen:
            if edit.tensor(node.inputs[WEIGHT_INPUT]) is not None:
                writer.round_weights(node)
        return Outcome(bool(chosen), Counter({RULE: len(chosen)} if chosen else {}), refused)

    def _is_open(self, node: ir.Node) -> bool:
        """Whether a node could have its operands rounded, and has not yet."""
        if not _operands(node) or node.inputs[0] is None:
            return False
        if node.op_type == "Attention" and not (self.half.without_weights and self.half.attends):
            return False
        made = node.inputs[0].producer()
        if made is None or made.op_type not in ("Cast", ROUND_TF32) or made.inputs[0] is None:
            return True
        return made.inputs[0].dtype != self.half.dtype

    def _held(self, model: ir.Model, chosen: Sequence[ir.Node]) -> Held:
        """The values that are rounded where they are computed."""
        nodes = frozenset(chosen)
        return Held(
            model.graph,
            lambda node, i: node in nodes and i < len(_operands(node)),
            self.half.movers,
            self.too_large,
        )

    def _why_not(self, node: ir.Node, context: Context) -> str:
        """Why a node stays on float32; empty if it need not."""
        if any(
            fnmatchcase(node.name or "", each) or fnmatchcase(node.op_type, each) for each in self.exclude
        ):
            return "excluded"
        weight = node.inputs[WEIGHT_INPUT]
        assert weight is not None
        if edit.tensor(weight) is None and not self.half.without_weights:
            return "weights computed at run time"
        if weight.dtype != ir.DataType.FLOAT:
            return "weights of another type"
        if edit.tensor(node.inputs[0]) is not None:
            return "a constant input"
        if any(self._is_too_large(operand) for operand in _operands(node)):
            return f"values beyond {self.half.name}"
        return "" if context.gains(node) else "nothing to gain"

    def _is_too_large(self, value: ir.Value) -> bool:
        array = edit.constant(value)
        if array is None:
            return value.name in self.too_large
        return bool(array.size) and not np.abs(array).max() <= self.half.largest


def _operands(node: ir.Node) -> list[ir.Value]:
    """What a node multiplies; nothing for other nodes."""
    count = OPERANDS.get((node.domain, node.op_type), 0)
    return [value for value in node.inputs[:count] if value is not None]


def factors(model: ir.Model) -> list[ir.Value]:
    """The float32 values computed at run time that may become halves: what nodes of the main graph multiply, add or move."""
    found = (
        value
        for node in model.graph
        for value in (node.inputs if node.op_type in MAY_TAKE_HALVES else _operands(node))
        if value is not None and edit.tensor(value) is None
    )
    return [value for value in dict.fromkeys(found) if value.dtype == ir.DataType.FLOAT]


def _by_operand(nodes: Sequence[ir.Node]) -> dict[ir.Value, list[ir.Node]]:
    """The values computed at run time that nodes multiply, each with those nodes."""
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        for value in dict.fromkeys(_operands(node)):
            if edit.tensor(value) is None:
                readers.setdefault(value, []).append(node)
    return readers


@dataclass
class _Writer:
    """Adds nodes and constants to the main graph of a model."""

    model: ir.Model
    half: Half
    held: Held
    halves: dict[ir.Value, ir.Value] = field(default_factory=dict)
    weights: dict[ir.Value, ir.Value] = field(default_factory=dict)
    names: edit.Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = edit.Names(self.model)

    def round(self, value: ir.Value, readers: Sequence[ir.Node]) -> None:
        """Let readers of a value have it rounded, and if it is held so, all that read it."""
        held = value in self.held.values
        places = [
            (user, i)
            for user, i in value.uses()
            if (user in readers and i < len(_operands(user))) or (held and user.op_type in RESIDUALS)
        ]
        rounded = self._widened(self._halves_of(value)) if places else value
        for user, i in places:
            user.replace_input_with(i, rounded)

    def round_weights(self, node: ir.Node) -> None:
        """Give a node weights that the half precision holds."""
        weight = node.inputs[WEIGHT_INPUT]
        assert weight is not None
        if weight not in self.weights:
            array = edit.constant(weight)
            assert array is not None
            rounded = _rounded(array, self.half)
            name = self.names.fresh(f"{weight.name}_rounded")
            self.weights[weight] = edit.add_constant(self.model.graph, rounded, name)
        node.replace_input_with(WEIGHT_INPUT, self.weights[weight])
        if edit.is_unused(weight):
            edit.drop_initializer(weight)

    def _halves_of(self, value: ir.Value) -> ir.Value:
        """A value in half precision: moved as such, or rounded."""
        if value not in self.halves:
            mover = value.producer()
            if mover is not None and self.held.moves(mover):
                self._move_halves(mover)
            else:
                self.halves[value] = self._narrowed(value)
        return self.halves[value]

    def _move_halves(self, mover: ir.Node) -> None:
        for i in moved_inputs(mover):
            source = mover.inputs[i]
            assert source is not None
            mover.replace_input_with(i, self._halves_of(source))
        for result in mover.outputs:
            result.type = ir.TensorType(self.half.dtype)
            self.halves[result] = result

    def _narrowed(self, value: ir.Value) -> ir.Value:
        if self.half.dtype != ir.DataType.FLOAT:
            return self._cast(value, self.half.dtype)
        self.model.opset_imports.setdefault(DOMAIN, 1)
        return self._add(ir.node(ROUND_TF32, [value], domain=DOMAIN), value, self.half.dtype)

    def _widened(self, half: ir.Value) -> ir.Value:
        return half if half.dtype == ir.DataType.FLOAT else self._cast(half, ir.DataType.FLOAT)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self._add(ir.node("Cast", [value], {"to": dtype.value}), value, dtype)

    def _add(self, made: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Insert a node behind a value of which it makes another type."""
        result = made.outputs[0]
        result.name = made.name = self.names.fresh(f"{value.name}_{dtype.name.lower()}")
        result.type, result.shape = ir.TensorType(dtype), value.shape
        edit.insert_behind(self.model.graph, value, [made])
        return result


def _rounded(array: np.ndarray[Any, Any], half: Half) -> np.ndarray[Any, Any]:
    """float32 weights that the precision holds."""
    if half.dtype == ir.DataType.FLOAT:
        kept = array * np.float32(TF32_SPLITTER)
        return np.asarray(kept - (kept - array))
    return array.astype(half.dtype.numpy()).astype(np.float32)


def _results(value: ir.Value) -> list[ir.Value]:
    """All results of the node that makes a value."""
    producer = value.producer()
    return [value] if producer is None else list(producer.outputs)

"""Removes what computes nothing: identities, neutral operands, no-op casts and moves, dead and repeated code."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes import movement, partitions, ranks, transposes
from graphopt.passes.dead_code import remove_dead_code
from graphopt.passes.sharing import share_initializers, share_subexpressions
from graphopt.passes.states import drop_zero_states
from graphopt.rewriting.pattern import Const, Number, Op
from graphopt.rewriting.pipeline import Context, Outcome
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule, apply_rules


@dataclass(frozen=True)
class Cleanup:
    """Lossless and always useful: the results stay the same bit for bit."""

    name: ClassVar[str] = "cleanup"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Removes dead code, shares what is equal, applies the rules, and once more where these changed something."""
        outcome = _sweep(model)
        rules = apply_rules(model, RULES)
        return outcome + rules + (_sweep(model) if rules.modified else Outcome())


def _sweep(model: ir.Model) -> Outcome:
    dead = drop_zero_states(model) + remove_dead_code(model)
    shared = share_initializers(model) + share_subexpressions(model)
    return dead + shared + (remove_dead_code(model) if shared.modified else Outcome())


def _same(match: Match) -> Replacement:
    return match["x"]


def _drop_dropout(match: Match) -> Replacement:
    if match.opset < 7:
        return Refuse("before opset 7 Dropout may train")
    training = match.root.inputs[2] if len(match.root.inputs) > 2 else None
    if training is not None and (edit.tensor(training) is None or match.root.inputs[2] is None):
        return Refuse("training_mode is not constant")
    if training is not None and edit.constant(training).any():  # type: ignore[union-attr]
        return Refuse("it drops: training_mode is true")
    if len(match.root.outputs) > 1 and not edit.is_unused(match.root.outputs[1]):
        return Refuse("its mask is used")
    return match["x"]


def _drop_cast(match: Match) -> Replacement:
    return match["x"] if match["x"].dtype == _to(match.root) else None


def _plain_cast(match: Match) -> Replacement:
    target = match["like"].dtype
    return (
        Refuse("the type is unknown") if target is None else match.op("Cast", [match["x"]], to=target.value)
    )


INNER_CAST = Op("Cast", "x", shared=True)


def _merge_casts(match: Match) -> Replacement:
    source, middle = match["x"].dtype, _to(match.node(INNER_CAST))
    if source is None:
        return Refuse("the type is unknown")
    if middle not in LOSSLESS.get(source, ()):
        return Refuse(f"{source.name} to {middle.name} loses information")
    target = _to(match.root)
    return match["x"] if target == source else match.op("Cast", [match["x"]], to=target.value)


def _to(node: ir.Node) -> ir.DataType:
    return ir.DataType(attribute(node, "to"))


_D = ir.DataType
LOSSLESS: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    _D.BOOL: (
        _D.UINT8,
        _D.INT8,
        _D.INT16,
        _D.UINT16,
        _D.INT32,
        _D.UINT32,
        _D.INT64,
        _D.FLOAT16,
        _D.FLOAT,
        _D.DOUBLE,
    ),
    _D.UINT8: (
        _D.INT16,
        _D.UINT16,
        _D.INT32,
        _D.UINT32,
        _D.INT64,
        _D.UINT64,
        _D.FLOAT16,
        _D.FLOAT,
        _D.DOUBLE,
    ),
    _D.INT8: (_D.INT16, _D.INT32, _D.INT64, _D.FLOAT16, _D.FLOAT, _D.DOUBLE),
    _D.UINT16: (_D.INT32, _D.UINT32, _D.INT64, _D.UINT64, _D.FLOAT, _D.DOUBLE),
    _D.INT16: (_D.INT32, _D.INT64, _D.FLOAT, _D.DOUBLE),
    _D.UINT32: (_D.INT64, _D.UINT64, _D.DOUBLE),
    _D.INT32: (_D.INT64, _D.DOUBLE),
    _D.FLOAT16: (_D.FLOAT, _D.DOUBLE),
    _D.BFLOAT16: (_D.FLOAT, _D.DOUBLE),
    _D.FLOAT: (_D.DOUBLE,),
}
"""The types that hold every value of a type exactly."""


def _neutral(match: Match) -> Replacement:
    """The operand itself, unless the constant broadcasts it to another shape."""
    value, other = match["x"], match["c"]
    if movement.same_shape(value, match.root.outputs[0]):
        return value
    size, rank = edit.tensor(other), None if value.shape is None else len(value.shape)
    if size is not None and size.size == 1 and rank is not None and len(size.shape) <= rank:
        return value
    return None


NON_NEGATIVE = ("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus")


def _operand(match: Match) -> Replacement:
    return match.root.inputs[0]


def _drop_power(match: Match) -> Replacement:
    """The base itself, unless the exponent broadcasts it to another shape."""
    return match["x"] if movement.same_shape(match["x"], match.root.outputs[0]) else None


def _is_one(array: np.ndarray) -> bool:
    return array.size > 0 and bool(np.all(array == 1))


def _is_positive_zero(array: np.ndarray) -> bool:
    """x - 0.0 is x for every x; x - (-0.0) is not, for x = -0.0."""
    return array.size > 0 and not array.any() and not np.signbit(array.astype(np.float64)).any()


def _is_additive_zero(array: np.ndarray) -> bool:
    """x + 0 is x for integers; for floats only x + (-0.0) is, since -0.0 + 0.0 = 0.0."""
    if array.size == 0 or array.any():
        return False
    return array.dtype.kind in "iu" or bool(np.signbit(array.astype(np.float64)).all())


REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceProd")


def _drop_reduction(match: Match) -> Replacement:
    """A reduction over axes of size 1 that keeps them."""
    shape = match["x"].shape
    if shape is None or not shape.is_static() or not attribute(match.root, "keepdims"):
        return None
    return match["x"] if movement.same_shape(match["x"], match.root.outputs[0]) else None


SMALL = 1 << 16
RULES = [
    Rule("identity", Op("Identity", "x"), _same),
    Rule("no-op dropout", Op("Dropout", "x", ...), _drop_dropout),
    Rule("no-op cast", Op("Cast", "x"), _drop_cast),
    Rule("cast like", Op("CastLike", "x", "like"), _plain_cast),
    Rule("cast chain", Op("Cast", INNER_CAST), _merge_casts),
    Rule("multiply by one", Op("Mul", "x", Const("c", where=_is_one, max_size=SMALL)), _neutral),
    Rule("divide by one", Op("Div", "x", Const("c", where=_is_one, max_size=SMALL)), _neutral),
    Rule("subtract zero", Op("Sub", "x", Const("c", where=_is_positive_zero, max_size=SMALL)), _neutral),
    Rule("add zero", Op("Add", "x", Const("c", where=_is_additive_zero, max_size=SMALL)), _neutral),
    Rule("double negation", Op("Neg", Op("Neg", "x", shared=True)), _same),
    Rule("double not", Op("Not", Op("Not", "x", shared=True)), _same),
    Rule("no-op reduction", Op(REDUCTIONS, "x", ...), _drop_reduction),
    Rule("rectified non-negative", Op("Relu", Op(NON_NEGATIVE, "x", ..., shared=True)), _operand),
    Rule("sum of one", Op(("Max", "Mean", "Min", "Sum"), "x"), _same),
    Rule("first power", Op("Pow", "x", Number(1)), _drop_power),
    *movement.RULES,
    *ranks.RULES,
    *partitions.RULES,
    *transposes.RULES,
]

"""Activations written with primitives become one operator: Gelu, Swish, HardSwish, HardSigmoid, Mish, Softplus, Sigmoid."""

import math

import onnx_ir as ir

from graphopt.passes.fuse.emit import emit
from graphopt.passes.fuse.terms import (
    Near,
    Product,
    Scalar,
    coefficient_between,
    cube,
    keeps_rank,
    scalar,
    square,
)
from graphopt.rewriting.pattern import Either, Op, Pattern, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
X = Var("x", where=lambda value: value.dtype in FLOATS)
RANK = "the constants may change the rank"


def _one_plus(term: Pattern) -> Pattern:
    return Op("Add", term, Near(1))


def _half_of_one_plus(term: Pattern) -> Pattern:
    """(1 + term) / 2, which Product already reads as a factor of 1/2, or written out as a sum of halves."""
    return Op("Add", Product(term, coefficient=0.5), Near(0.5))


ERF = Op("Erf", Product(X, coefficient=math.sqrt(0.5)))
_SCALE = math.sqrt(2 / math.pi)
_CUBIC = Either(Product(cube("x"), coefficient=0.044715), Product(X, X, X, coefficient=0.044715))
_QUADRATIC = Either(Product(square("x"), coefficient=0.044715), Product(X, X, coefficient=0.044715))
TANH = Op(
    "Tanh",
    Either(
        Product(Op("Add", X, _CUBIC), coefficient=_SCALE),
        Product(X, Op("Add", _QUADRATIC, Near(1)), coefficient=_SCALE),
    ),
)


def _gelu(approximate: str, inner: Op) -> list[Rule]:
    def rewrite(match: Match) -> Replacement:
        if not keeps_rank(match):
            return Refuse(RANK)
        return emit(match, "Gelu", [match["x"]], approximate=None if approximate == "none" else approximate)

    name = "gelu" if approximate == "none" else f"gelu {approximate}"
    return [
        Rule(name, Product(X, _one_plus(inner), coefficient=0.5), rewrite),
        Rule(name, Product(X, _half_of_one_plus(inner)), rewrite),
    ]


SIGMOID = Op("Sigmoid", Product(X, coefficient=None))


def _swish(match: Match) -> Replacement:
    if not keeps_rank(match):
        return Refuse(RANK)
    gate = match.node(SIGMOID).inputs[0]
    assert gate is not None
    alpha = coefficient_between(gate, match["x"])
    return emit(match, "Swish", [match["x"]], alpha=None if alpha == 1 else alpha)


def _clips(low: float, high: float, inner: Pattern) -> tuple[Op, Op]:
    """Clip between two numbers, whether they are inputs or, before opset 11, attributes."""
    bounds = {"min": lambda value: value == low, "max": lambda value: value == high}
    return Op("Clip", inner, Near(low), Near(high)), Op("Clip", inner, attributes=bounds)


SHIFTED = Op("Add", Product(X, coefficient=None), Scalar("shift"))
RELU6_OF_SHIFTED = Either(*_clips(0.0, 6.0, Op("Add", X, Near(3))))


def _hard_sigmoid(match: Match) -> Replacement:
    """clip(alpha x + beta, 0, 1)."""
    if not keeps_rank(match):
        return Refuse(RANK)
    term = next(value for value in match.node(SHIFTED).inputs if value is not None and scalar(value) is None)
    beta = scalar(match["shift"])
    return match.op("HardSigmoid", [match["x"]], alpha=coefficient_between(term, match["x"]), beta=beta)


def _hard_sigmoid_of_six(match: Match) -> Replacement:
    if not keeps_rank(match):
        return Refuse(RANK)
    return match.op("HardSigmoid", [match["x"]], alpha=1 / 6, beta=0.5)


def _hard_swish(match: Match) -> Replacement:
    return emit(match, "HardSwish", [match["x"]]) if keeps_rank(match) else Refuse(RANK)


def _is_sixth(alpha: float) -> bool:
    return math.isclose(alpha, 1 / 6, rel_tol=2e-4)


STANDARD_HARD_SIGMOID = Op("HardSigmoid", X, attributes={"alpha": _is_sixth, "beta": 0.5})

SOFTPLUS = Either(Op("Softplus", X), Op("Log", _one_plus(Op("Exp", X))))


def _mish(match: Match) -> Replacement:
    return emit(match, "Mish", [match["x"]]) if keeps_rank(match) else Refuse(RANK)


def _sigmoid(match: Match) -> Replacement:
    return match.op("Sigmoid", [match["x"]]) if keeps_rank(match) else Refuse(RANK)


LOGISTIC = _one_plus(Op("Exp", Op("Neg", X)))

GELU_RULES = [*_gelu("none", ERF), *_gelu("tanh", TANH)]
SWISH_RULES = [Rule("swish", Product(X, SIGMOID), _swish)]
SIGMOID_RULES = [
    Rule("sigmoid", Op("Div", Near(1), LOGISTIC), _sigmoid),
    Rule("sigmoid", Op("Reciprocal", LOGISTIC), _sigmoid),
]
HARD_RULES = [
    Rule("hard swish", Product(X, RELU6_OF_SHIFTED, coefficient=1 / 6), _hard_swish),
    Rule("hard swish", Product(X, STANDARD_HARD_SIGMOID), _hard_swish),
    *(Rule("hard sigmoid", clip, _hard_sigmoid) for clip in _clips(0.0, 1.0, SHIFTED)),
    Rule("hard sigmoid", Product(RELU6_OF_SHIFTED, coefficient=1 / 6), _hard_sigmoid_of_six),
]
MISH_RULES = [Rule("mish", Product(X, Op("Tanh", SOFTPLUS)), _mish)]
RULES = [*GELU_RULES, *SWISH_RULES, *SIGMOID_RULES, *HARD_RULES, *MISH_RULES]

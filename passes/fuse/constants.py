"""Constants that follow each other: factors multiply, summands add up, and a factor in front of MatMul goes into it."""

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.passes.fuse.weights import in_dtype, new_weight
from graphopt.rewriting.pattern import Const, Op
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

SMALL = 1 << 20
CHEAP = 1 << 10
"""Elements of a constant that may be copied although others use it."""

CANCELLED = 1e-3
"""Summands that leave less than this of themselves are a rounding trick, such as ``x + 2**23 - 2**23``."""


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def _constant(name: str) -> Const:
    return Const(name, where=_is_float, max_size=SMALL)


FACTOR = Op(("Mul", "Div"), "x", _constant("a"))
SUMMAND = Op(("Add", "Sub"), "x", _constant("a"))
_INVERTS = frozenset({"Div", "Sub"})


def _merge_factors(match: Match) -> Replacement:
    if match.root.inputs[0] is match["b"] and match.root.op_type == "Div":
        return None
    numbers = _operands(match, FACTOR, np.reciprocal)
    if numbers is None:
        return Refuse("the product of the constants would be larger than they are")
    product = numbers[0] * numbers[1]
    lost = np.any((product == 0) & (numbers[0] != 0) & (numbers[1] != 0))
    merged = in_dtype(product, match.array("b").dtype)
    if isinstance(merged, Refuse) or lost or np.any((merged == 0) & (product != 0)):
        return Refuse("the product of the constants is out of range")
    return match.op("Mul", [match["x"], merged])


def _merge_summands(match: Match) -> Replacement:
    numbers = _operands(match, SUMMAND, np.negative)
    if numbers is None:
        return Refuse("the sum of the constants would be larger than they are")
    total = numbers[0] + numbers[1]
    if np.any(np.abs(total) < CANCELLED * np.maximum(*map(np.abs, numbers))):
        return Refuse("the constants cancel, which may be there to round")
    merged = in_dtype(total, match.array("b").dtype)
    return merged if isinstance(merged, Refuse) else match.op("Add", [match["x"], merged])


def _operands(match: Match, inner: Op, inverse: np.ufunc) -> list[np.ndarray] | None:
    """Both constants in double precision, inverted where the operator inverts; None if together they would grow."""
    constants = [(match.node(inner), "a"), (match.root, "b")]
    arrays = [match.array(name) for _, name in constants]
    size = np.broadcast(*arrays).size
    owned = [
        array.size for array, (_, name) in zip(arrays, constants, strict=True) if len(match[name].uses()) == 1
    ]
    if size > max(CHEAP, *owned, 0):
        return None
    with np.errstate(divide="ignore", over="ignore"):
        return [
            inverse(array.astype(np.float64)) if node.op_type in _INVERTS else array.astype(np.float64)
            for array, (node, _) in zip(arrays, constants, strict=True)
        ]


SCALED = Op("Mul", "x", _constant("scale"), shared=True)


def _scale_rows(match: Match) -> Replacement:
    """A factor for each column of the left operand is one for each row of the right one.

    Only if every user of the product takes it in, for else the multiplication would stay.
    """
    product, scale = match.node(SCALED).outputs[0], match.array("scale")
    rows = match.array("w").shape[0]
    if (
        scale.shape[-1:] not in ((rows,), (1,), ())
        or scale.size not in (rows, 1)
        or not _keeps_rank(match["x"], scale)
    ):
        return None
    if product.is_graph_output() or not all(_takes_scale(use.node, use.idx) for use in product.uses()):
        return None
    column = scale.reshape(-1, 1).astype(np.float64)
    weight = new_weight(match, lambda array: array * column)
    return weight if isinstance(weight, Refuse) else match.op("MatMul", [match["x"], weight])


def _keeps_rank(value: ir.Value, scale: np.ndarray) -> bool:
    return scale.ndim <= 1 or (value.shape is not None and scale.ndim <= len(value.shape))


def _takes_scale(user: ir.Node, index: int) -> bool:
    if user.op_type != "MatMul" or user.domain != "" or index != 0:
        return False
    value = user.inputs[1]
    weight = edit.tensor(value)
    return value is not None and weight is not None and len(weight.shape) == 2 and len(value.uses()) == 1


NORMALISED = Op(
    "BatchNormalization",
    "x",
    Const("gain"),
    Const("shift"),
    "mean",
    "variance",
    attributes={"training_mode": 0},
)


def _into_batch_normalisation(match: Match) -> Replacement:
    """A factor or summand for each channel, or for all, behind a batch normalisation."""
    if match.opset < 14:
        return None
    gain, number = match.array("gain").astype(np.float64), match.array("b").astype(np.float64)
    shape = match["x"].shape
    if shape is None or number.ndim > len(shape) or number.size not in (1, gain.size):
        return Refuse("the constant is not per channel")
    if number.size != 1 and ([1] * (len(shape) - number.ndim) + list(number.shape))[1] != gain.size:
        return Refuse("the constant is not per channel")
    flat = number.reshape(-1)
    scale, summand = (flat, 0.0) if match.root.op_type == "Mul" else (1.0, flat)
    parts = [gain * scale, match.array("shift").astype(np.float64) * scale + summand]
    rounded = [in_dtype(part, match.array("gain").dtype) for part in parts]
    refusal = next((each for each in rounded if isinstance(each, Refuse)), None)
    if refusal is not None:
        return refusal
    inputs = [match["x"], *rounded, match["mean"], match["variance"]]
    return match.op("BatchNormalization", inputs, attributes_of=match.node(NORMALISED))  # type: ignore[arg-type]


def _log_softmax(match: Match) -> Replacement:
    return match.op("LogSoftmax", [match["x"]], attributes_of=match.node(SOFTMAX))


SOFTMAX = Op("Softmax", "x")


def _is_zero(array: np.ndarray) -> bool:
    return array.size > 0 and array.dtype.kind == "f" and not array.any()


def _add_zero(match: Match) -> Replacement:
    """Only the sign of a zero may differ."""
    value, result = match["x"], match.root.outputs[0]
    if value.shape is None or result.shape is None or len(value.shape) != len(result.shape):
        return None
    if match.array("zero").size == 1 or (value.shape == result.shape and value.shape.is_static()):
        return value
    return None


RULES = [
    Rule("constant factors", Op(("Mul", "Div"), FACTOR, _constant("b")), _merge_factors),
    Rule("constant summands", Op(("Add", "Sub"), SUMMAND, _constant("b")), _merge_summands),
    Rule(
        "factor before MatMul",
        Op("MatMul", SCALED, Const("w", where=lambda w: w.ndim == 2 and _is_float(w))),
        _scale_rows,
    ),
    Rule(
        "constant after BatchNormalization",
        Op(("Mul", "Add"), NORMALISED, _constant("b")),
        _into_batch_normalisation,
    ),
    Rule("log of Softmax", Op("Log", SOFTMAX), _log_softmax),
    Rule("add zero", Op("Add", "x", Const("zero", where=_is_zero, max_size=SMALL)), _add_zero),
]

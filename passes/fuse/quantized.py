"""Convolutions and matrix products between DequantizeLinear and QuantizeLinear become operators on integers.

Their sums are exact then, and rounded once, with the arithmetic that ONNX Runtime uses for the same models.
"""

import numpy as np
import onnx_ir as ir

from graphopt.passes.fuse.bounds import Bounds, bounds
from graphopt.pattern import Const, Either, Op, Pattern, Var, attribute
from graphopt.rewrite import Match, Refuse, Replacement, Rule

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)

BIAS_SCALE_TOLERANCE = 1e-4
"""How far, relatively, the scale of a bias may be from the product of the scales of data and weights."""


def _dequantized(name: str, source: Pattern, scale_size: int | None = None) -> Op:
    """Binds the integers as their own pattern says, and their parameters as `name`_scale and `name`_zero."""
    parameters = Const(f"{name}_scale", max_size=scale_size), Const(f"{name}_zero", optional=True)
    return Op("DequantizeLinear", source, *parameters, shared=True)


def _byte(value: ir.Value) -> bool:
    return value.dtype in BYTES


DATA = _dequantized("x", Var("x", where=_byte), scale_size=1)
WEIGHT = _dequantized("w", Const("w", where=lambda array: array.dtype in (np.int8, np.uint8)))
BIAS = _dequantized("b", Const("b", where=lambda array: array.dtype == np.int32))
CONV = Op("Conv", DATA, WEIGHT, Either(BIAS, None))
MATMUL = Op("MatMul", DATA, WEIGHT)
LIMIT = Op(("Clip", "Relu"), CONV, ...)


def _quantized(source: Op) -> Op:
    parameters = Const("y_scale", max_size=1), Const("y_zero", optional=True)
    return Op("QuantizeLinear", source, *parameters, where=lambda node: _byte(node.outputs[0]))


def _integer_conv(match: Match) -> Replacement:
    refusal = _why_not(match, 0)
    if refusal is not None:
        return refusal
    bias = match.array("b") if match.get("b") is not None else None
    return match.op(
        "QLinearConv",
        [*_operand(match, "x"), *_operand(match, "w"), *_parameters(match, "y"), bias],
        like=match.root.outputs[0],
        attributes_of=match.node(CONV),
    )


def _limited_conv(match: Match) -> Replacement:
    """Rounding is monotone, so bounds may come after it; those that the range of the integers implies are dropped."""
    found = bounds(match.node(LIMIT))
    if found is None:
        return Refuse("the bounds are not constant")
    result = _integer_conv(match)
    return _clamped(match, result, found) if isinstance(result, ir.Value) else result


def _clamped(match: Match, value: ir.Value, found: Bounds) -> Replacement:
    dtype = match.root.outputs[0].dtype
    assert dtype is not None
    limits = np.iinfo(dtype.numpy())
    low, high = (_level(match, bound, limits) for bound in (found.low, found.high))
    for op, level, implied in (("Max", low, limits.min), ("Min", high, limits.max)):
        if level == implied:
            continue
        if match.opset < 12:
            return Refuse(f"{op} of bytes needs opset 12")
        value = match.op(op, [value, np.array(level, dtype.numpy())], like=match.root.outputs[0])
    return value


def _level(match: Match, number: float, limits: np.iinfo) -> int:
    """The integer that a number is quantised to."""
    zero = match.array("y_zero") if match.get("y_zero") is not None else np.zeros(1)
    level = np.rint(np.float32(number) / match.array("y_scale").reshape(-1)[0]) + zero.reshape(-1)[0]
    return int(np.clip(level, limits.min, limits.max))


def _integer_matmul(match: Match) -> Replacement:
    if any(shape is None or len(shape) < 2 for shape in (match["x"].shape, match["w"].shape)):
        return Refuse("an operand is no matrix")
    refusal = _why_not(match, -1)
    if refusal is not None:
        return refusal
    return match.op("QLinearMatMul", [*_operand(match, "x"), *_operand(match, "w"), *_parameters(match, "y")])


def _why_not(match: Match, channels: int) -> Refuse | None:
    """Why the integers cannot be taken as they are; the output channels lie along axis `channels` of the weights."""
    if any(match.array(f"{name}_scale").dtype != np.float32 for name in ("x", "w", "y")):
        return Refuse("a scale is not float32")
    rank, weight = match.array("w").ndim, match.node(WEIGHT)
    if match.array("w_scale").size > 1 and (
        match.array("w_scale").ndim > 1 or attribute(weight, "axis") % rank != channels % rank
    ):
        return Refuse("the weights are not quantised by output channel")
    if match.get("b") is None:
        return None
    wanted = match.array("x_scale").reshape(-1) * match.array("w_scale").reshape(-1)
    if not np.allclose(match.array("b_scale").reshape(-1), wanted, rtol=BIAS_SCALE_TOLERANCE, atol=0):
        return Refuse("the bias has another scale than the products it is added to")
    if match.get("b_zero") is not None and match.array("b_zero").any():
        return Refuse("the bias has a zero point")
    return None


def _operand(match: Match, name: str) -> list[ir.Value | np.ndarray]:
    return [match[name], *_parameters(match, name)]


def _parameters(match: Match, name: str) -> list[ir.Value | np.ndarray]:
    """Scale and zero point, which these operators cannot leave out."""
    zero = match.get(f"{name}_zero")
    if zero is not None:
        return [match[f"{name}_scale"], zero]
    dtype = match.root.outputs[0].dtype if name == "y" else match[name].dtype
    assert dtype is not None
    return [match[f"{name}_scale"], np.zeros_like(match.array(f"{name}_scale"), dtype.numpy())]


RULES = [
    Rule("integer Conv", _quantized(CONV), _integer_conv),
    Rule("integer Conv", _quantized(LIMIT), _limited_conv),
    Rule("integer MatMul", _quantized(MATMUL), _integer_matmul),
]
"""For the compiler: other tools keep models with DequantizeLinear and QuantizeLinear as they are."""

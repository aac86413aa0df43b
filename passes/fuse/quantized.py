"""Convolutions and matrix products between DequantizeLinear and QuantizeLinear become operators on integers.

Their sums are exact then, and rounded once, with the arithmetic that ONNX Runtime uses for the same models. Those without a
QuantizeLinear right behind become sums of integers that are scaled: whatever follows works on floats. What moves elements, or
chooses among them, moves integers.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.fuse.bounds import Bounds, bounds
from graphopt.rewriting.pattern import Const, Either, Op, Pattern, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

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
FLOAT_BIAS = Const("b", where=lambda array: array.dtype == np.float32)
CONV = Op("Conv", DATA, WEIGHT, Either(BIAS, FLOAT_BIAS, None))
MATMUL = Op("MatMul", DATA, WEIGHT)
GEMM = Op("Gemm", DATA, WEIGHT, Either(BIAS, FLOAT_BIAS, None))
LIMIT = Op(("Clip", "Relu"), CONV, ...)
MOVES = (
    "DepthToSpace",
    "Flatten",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
MOVER = Op(MOVES, DATA, ...)
JOIN = Op("Concat", ...)


def _quantized(source: Op) -> Op:
    parameters = Const("y_scale", max_size=1), Const("y_zero", optional=True)
    return Op("QuantizeLinear", source, *parameters, where=lambda node: _byte(node.outputs[0]))


def _integer_conv(match: Match) -> Replacement:
    refusal = _why_not(match, 0)
    if refusal is not None:
        return refusal
    bias = _integer_bias(match)
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
    scales = [name for name in ("x_scale", "w_scale", "y_scale") if match.get(name) is not None]
    if any(match.array(name).dtype != np.float32 for name in scales):
        return Refuse("a scale is not float32")
    rank, weight = match.array("w").ndim, match.node(WEIGHT)
    if match.array("w_scale").size > 1 and (
        match.array("w_scale").ndim > 1 or attribute(weight, "axis") % rank != channels % rank
    ):
        return Refuse("the weights are not quantised by output channel")
    if match.get("b") is None or match.array("b").dtype == np.float32:
        return None
    if not np.allclose(
        match.array("b_scale").reshape(-1), _product_scale(match), rtol=BIAS_SCALE_TOLERANCE, atol=0
    ):
        return Refuse("the bias has another scale than the products it is added to")
    if match.get("b_zero") is not None and match.array("b_zero").any():
        return Refuse("the bias has a zero point")
    return None


def _product_scale(match: Match) -> np.ndarray:
    """What one of the sums stands for, for each filter or once."""
    return np.asarray(match.array("x_scale").reshape(-1) * match.array("w_scale").reshape(-1))


def _integer_bias(match: Match) -> np.ndarray | None:
    """In steps of the sums."""
    if match.get("b") is None:
        return None
    bias = match.array("b")
    if bias.dtype == np.int32:
        return bias
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(bias / _product_scale(match).astype(np.float64)), limits.min, limits.max).astype(
        np.int32
    )


def _float_bias(match: Match) -> np.ndarray | None:
    """As the numbers that it stands for."""
    if match.get("b") is None:
        return None
    bias = match.array("b")
    return bias if bias.dtype == np.float32 else (bias * _product_scale(match)).astype(np.float32)


def _scaled_sums(op_type: str, trailing: int) -> Callable[[Match], Replacement]:
    """The sums of `op_type`, scaled and with the bias added; `trailing` axes follow the output channels."""

    def rewrite(match: Match) -> Replacement:
        refusal = _why_not(match, 0 if trailing else -1)
        if refusal is not None:
            return refusal
        if _is_quantized(match.root.outputs[0]):
            return Refuse("its result is quantised at once")
        zeros = [match.get("x_zero"), match.get("w_zero")]
        sums = match.op(op_type, [match["x"], match["w"], *zeros], attributes_of=match.root)
        shape = match.root.outputs[0].shape
        return _scaled(match, sums, len(shape) - 2 if trailing and shape is not None else 0)

    return rewrite


def _scaled(match: Match, sums: ir.Value, trailing: int) -> ir.Value:
    """What sums stand for, with the bias; `trailing` axes follow the output channels."""
    ones, bias = [1] * trailing, _float_bias(match)
    found = match.op("Cast", [sums], to=ir.DataType.FLOAT.value)
    found = match.op("Mul", [found, _product_scale(match).reshape(-1, *ones)])
    return found if bias is None else match.op("Add", [found, bias.reshape(-1, *ones)])


def _gemm_sums(match: Match) -> Replacement:
    transposed = bool(attribute(match.root, "transB"))
    refusal = _why_not(match, 0 if transposed else 1)
    if refusal is not None:
        return refusal
    if attribute(match.root, "transA") or any(
        attribute(match.root, name) not in (None, 1.0) for name in ("alpha", "beta")
    ):
        return Refuse("its operands are scaled or transposed")
    if match.get("b") is not None and match.array("b").ndim > 1:
        return Refuse("its bias is no row")
    weights = np.ascontiguousarray(match.array("w").T) if transposed else match["w"]
    sums = match.op("MatMulInteger", [match["x"], weights, match.get("x_zero"), match.get("w_zero")])
    return _scaled(match, sums, 0)


def _is_quantized(value: ir.Value) -> bool:
    """Whether all that becomes of a value is rounded to bytes, once limited at most: there is a better rule for that."""
    users = [node for node, _ in value.uses()]
    if len(users) == 1 and users[0].op_type in ("Clip", "Relu"):
        users = [node for node, _ in users[0].outputs[0].uses()]
    return len(users) == 1 and users[0].op_type == "QuantizeLinear" and _byte(users[0].outputs[0])


def _moved(match: Match) -> Replacement:
    """The integers themselves pass through an operator that gives back some of its elements, in another order perhaps."""
    mover = match.node(MOVER)
    if match.get("x_zero") is not match.get("y_zero") and not _same(match, "zero"):
        return Refuse("the zero points differ")
    if not _same(match, "scale"):
        return Refuse("the scales differ")
    if match.root.outputs[0].dtype != match["x"].dtype:
        return Refuse("the types differ")
    return match.op(
        mover.op_type, [match["x"], *mover.inputs[1:]], like=match.root.outputs[0], attributes_of=mover
    )


def _joined(match: Match) -> Replacement:
    """Integers of one scale and zero point that are put together as floats."""
    concat = match.node(JOIN)
    sources = [None if value is None else value.producer() for value in concat.inputs]
    if any(node is None or node.op_type != "DequantizeLinear" or node.domain != "" for node in sources):
        return None
    wanted = _arrays(match.root)
    if wanted is None:
        return Refuse("it has a scale for each channel")
    integers = [node.inputs[0] for node in sources if node is not None]
    if any(value is None or value.dtype != match.root.outputs[0].dtype for value in integers):
        return Refuse("the types differ")
    if any(node is not None and _arrays(node) != wanted for node in sources):
        return Refuse("the scales differ")
    return match.op("Concat", integers, like=match.root.outputs[0], attributes_of=concat)


def _arrays(node: ir.Node) -> list[float] | None:
    """Scale and zero point of a node that has one of each; None for any other."""
    found = [edit.constant(value) for value in node.inputs[1:]]
    if any(array is None or array.size != 1 for array in found):
        return None
    numbers = [float(array.reshape(-1)[0]) for array in found if array is not None]
    return [*numbers, 0.0][:2]


def _same(match: Match, name: str) -> bool:
    values = [match.get(f"{side}_{name}") for side in "xy"]
    if None in values:
        return all(
            value is None or not match.array(f"{side}_{name}").any()
            for side, value in zip("xy", values, strict=True)
        )
    return np.array_equal(match.array(f"x_{name}"), match.array(f"y_{name}"))


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
    Rule("sums of Conv", CONV, _scaled_sums("ConvInteger", 1)),
    Rule("sums of Gemm", GEMM, _gemm_sums),
    Rule("sums of MatMul", MATMUL, _scaled_sums("MatMulInteger", 0)),
    Rule("integers moved", _quantized(MOVER), _moved),
    Rule("integers moved", _quantized(JOIN), _joined),
]
"""For the compiler: other tools keep models with DequantizeLinear and QuantizeLinear as they are."""

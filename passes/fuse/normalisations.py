"""Layer and RMS normalisation written with primitives, and the constants that scale and shift their results."""

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.passes.evaluate import axes_of
from graphopt.passes.fuse.emit import DOMAIN, emit
from graphopt.passes.fuse.terms import Scalar, inverse_root, keeps_rank, over_root, scalar, square
from graphopt.rewriting.pattern import Const, Op, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
X = Var("x", where=lambda value: value.dtype in FLOATS)
"""Not double: the fused operators compute in single precision."""

MEAN = Op("ReduceMean", X, ..., attributes={"keepdims": 1})
DEVIATION = Op("Sub", X, MEAN)
VARIANCE = Op("ReduceMean", square(DEVIATION), ..., attributes={"keepdims": 1})
STABLE_VARIANCE = Op("Add", VARIANCE, Scalar("eps"))
GAIN = Op("Mul", inverse_root(STABLE_VARIANCE), Const("gamma"))
AS_BATCH_NORMALISATION = Op("Add", Op("Mul", X, GAIN), Op("Sub", Const("beta"), Op("Mul", MEAN, GAIN)))
"""x g + (beta - mean g) with g = gamma / deviation, as TensorFlow writes it."""

MEAN_SQUARE = Op("ReduceMean", square("x"), ..., attributes={"keepdims": 1})
STABLE_MEAN_SQUARE = Op("Add", MEAN_SQUARE, Scalar("eps"))


def _first_axis(match: Match, *reductions: Op) -> int | Refuse:
    """The first of the trailing axes over which all ``reductions`` go."""
    shape = match["x"].shape
    if shape is None:
        return Refuse("the rank is unknown")
    found = {_axes(match.node(each), len(shape)) for each in reductions}
    axes = found.pop()
    if found or axes is None:
        return Refuse("the axes differ, or are not constant")
    first = len(shape) - len(axes)
    if not axes or axes != tuple(range(first, len(shape))):
        return Refuse("the axes are not the last ones")
    return first


def _axes(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    axes = axes_of(node, [edit.constant(value) for value in node.inputs], 1)
    return None if axes is None else tuple(sorted(axis % rank for axis in axes))


def _normalised_dims(value: ir.Value, first: int) -> tuple[int, ...] | None:
    """The dimensions from ``first`` on, if all are fixed."""
    assert value.shape is not None
    dims = tuple(dim for dim in value.shape.dims[first:] if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) - first else None


def _normalisation(match: Match, op_type: str, *reductions: Op) -> Replacement:
    first = _first_axis(match, *reductions)
    if isinstance(first, Refuse):
        return first
    source = match["x"]
    dims = _normalised_dims(source, first)
    if dims is None:
        return Refuse("a normalised dimension is free")
    assert source.shape is not None
    assert source.dtype is not None
    ones = np.ones(dims, source.dtype.numpy())
    return emit(match, op_type, [source, ones], axis=first - len(source.shape), epsilon=scalar(match["eps"]))


def _layer_normalisation(match: Match) -> Replacement:
    return _normalisation(match, "LayerNormalization", MEAN, VARIANCE)


def _rms_normalisation(match: Match) -> Replacement:
    return _normalisation(match, "RMSNormalization", MEAN_SQUARE)


def _batch_normalisation_form(match: Match) -> Replacement:
    first = _first_axis(match, MEAN, VARIANCE)
    if isinstance(first, Refuse):
        return first
    source = match["x"]
    dims = _normalised_dims(source, first)
    if dims is None:
        return Refuse("a normalised dimension is free")
    gamma, beta = _fitted(match.array("gamma"), dims), _fitted(match.array("beta"), dims)
    if gamma is None or beta is None:
        return Refuse("scale or bias vary along other axes")
    assert source.shape is not None
    axis = first - len(source.shape)
    return emit(match, "LayerNormalization", [source, gamma, beta], axis=axis, epsilon=scalar(match["eps"]))


def _fitted(array: np.ndarray, dims: tuple[int, ...]) -> np.ndarray | None:
    """``array`` spread over ``dims``, or None if it does not broadcast to them."""
    while array.ndim > len(dims) and array.shape[0] == 1:
        array = array[0]
    try:
        return np.ascontiguousarray(np.broadcast_to(array, dims))
    except ValueError:
        return None


def _absorbing(domain: str) -> list[Rule]:
    """Rules that take a constant factor, and then a constant summand, into a normalisation of ``domain``."""
    operands = ("x", Const("scale"), Const("bias", optional=True))
    plain = Op(("LayerNormalization", "RMSNormalization"), "x", Const("scale"), domain=domain)
    layer = Op("LayerNormalization", *operands, domain=domain)

    def scale(match: Match) -> Replacement:
        node, factor = match.node(plain), _fitted(match.array("c"), match.array("scale").shape)
        if factor is None or not keeps_rank(match):
            return Refuse("the factor varies along other axes")
        return _rebuilt(match, node, [match["x"], _product(match.array("scale"), factor)])

    def shift(match: Match) -> Replacement:
        node, summand = match.node(layer), _fitted(match.array("c"), match.array("scale").shape)
        if summand is None or not keeps_rank(match):
            return Refuse("the summand varies along other axes")
        bias = match.array("bias") + summand if match.get("bias") is not None else summand
        return _rebuilt(match, node, [match["x"], match["scale"], bias.astype(summand.dtype)])

    return [
        Rule("normalisation scale", Op("Mul", plain, Const("c")), scale),
        Rule("normalisation bias", Op("Add", layer, Const("c")), shift),
    ]


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    result: np.ndarray = (left * right).astype(left.dtype)
    return result


def _rebuilt(match: Match, node: ir.Node, inputs: list[ir.Value | np.ndarray]) -> ir.Value:
    return match.op(node.op_type, inputs, domain=node.domain, attributes_of=node)


CORE_RULES = [
    *(Rule("layer norm", each, _layer_normalisation) for each in over_root(DEVIATION, STABLE_VARIANCE)),
    Rule("layer norm", AS_BATCH_NORMALISATION, _batch_normalisation_form),
    *(Rule("rms norm", each, _rms_normalisation) for each in over_root("x", STABLE_MEAN_SQUARE)),
]
RULES = [*CORE_RULES, *_absorbing(""), *_absorbing(DOMAIN)]

"""Values of ONNX operators computed with numpy: ``evaluate(node, arrays)``.

The operators that move data also work on object arrays, which is how symbolic shapes are evaluated.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute, opset
from graphopt.passes import indexing

NIBBLES = ("int4", "uint4")
"""Types to which numpy itself has no name; all of their values are int8 too."""

Arrays = Sequence[Any]
"""One ``np.ndarray`` for each input, None where an optional input is absent."""
Function = Callable[[ir.Node, Arrays], Any]


def evaluate(node: ir.Node, arrays: Arrays) -> tuple[np.ndarray, ...] | None:
    """The outputs of ``node`` for constant inputs (None where an input is absent).

    None if the operator is not known here, is not deterministic, or cannot be computed for these inputs.
    """
    if node.domain != "":
        return None
    function = FUNCTIONS.get(node.op_type)
    if function is None and node.op_type not in BY_REFERENCE:
        return None
    try:
        with np.errstate(all="ignore"):
            found = by_reference(node, arrays) if function is None else function(node, arrays)
    except (ValueError, IndexError, TypeError, ArithmeticError, RuntimeError, KeyError, NotImplementedError):
        return None
    if found is None:
        return None
    results = found if isinstance(found, tuple) else (found,)
    return tuple(np.asarray(each) for each in results)


def by_reference(node: ir.Node, arrays: Arrays) -> tuple[np.ndarray, ...]:
    """Runs the node in ONNX's reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    given = {
        name: array for name, array in zip(proto.input, arrays, strict=True) if name and array is not None
    }
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in given.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "node", inputs, outputs)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset(node))], ir_version=8
    )
    return tuple(ReferenceEvaluator(model).run(None, given))


BY_REFERENCE = frozenset(
    [
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitShift",
        "DepthToSpace",
        "EyeLike",
        "OneHot",
        "QuantizeLinear",
        "ScatterElements",
        "SpaceToDepth",
    ]
)


def _elementwise(function: Callable[..., Any]) -> Function:
    return lambda node, arrays: function(*arrays)


def _variadic(function: Callable[..., Any]) -> Function:
    def run(node: ir.Node, arrays: Arrays) -> Any:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return result

    return run


def _divide(node: ir.Node, arrays: Arrays) -> Any:
    left, right = arrays
    if left.dtype.kind not in "iu":
        return left / right if left.dtype.kind == "f" else left // right
    if not np.all(right):
        return None
    quotient = np.abs(left) // np.abs(right)
    return (quotient * np.sign(left) * np.sign(right)).astype(left.dtype)


def _modulo(node: ir.Node, arrays: Arrays) -> Any:
    left, right = arrays
    return np.fmod(left, right) if attribute(node, "fmod") else np.mod(left, right)


def _power(node: ir.Node, arrays: Arrays) -> Any:
    base, exponent = arrays
    return np.power(base, exponent).astype(base.dtype)


def _batch_normalization(node: ir.Node, arrays: Arrays) -> Any:
    """With given statistics or, as exporters standardise weights, with those of the data itself."""
    x, scale, bias, mean, variance = arrays
    if opset(node) < 7 or not all(edit.is_unused(output) for output in node.outputs[1:]):
        return None
    if attribute(node, "training_mode"):
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        mean, variance = x.mean(axes), x.var(axes)
    scale, bias, mean, variance = (
        each.reshape(-1, *[1] * (x.ndim - 2)) for each in (scale, bias, mean, variance)
    )
    deviation = np.sqrt(variance + np.asarray(attribute(node, "epsilon"), variance.dtype))
    return ((x - mean) / deviation * scale + bias).astype(x.dtype)


def _cast(node: ir.Node, arrays: Arrays) -> Any:
    array = arrays[0]
    target = ir.DataType(attribute(node, "to")).numpy()
    if array.dtype.kind == "O":
        return array if target.kind in "iu" else None
    if array.dtype.name in NIBBLES:
        array = array.astype(np.int8)
    if array.dtype.kind not in "biuf" or np.dtype(target).kind not in "biuf":
        return None
    if array.dtype.kind == "f" and target.kind in "iu" and not _fits(array, target):
        return None
    return array.astype(target)


def _fits(array: np.ndarray, target: np.dtype[Any]) -> bool:
    limits = np.iinfo(target)
    return bool(np.all(np.isfinite(array)) and np.all(array >= limits.min) and np.all(array <= limits.max))


def axes_of(node: ir.Node, arrays: Arrays, position: int) -> tuple[int, ...] | None:
    """The axes of a node that has them as an attribute (older opsets) or as an input; None if not given."""
    given = attribute(node, "axes")
    if given is not None:
        return tuple(given)
    array = arrays[position] if len(arrays) > position else None
    return None if array is None else tuple(int(axis) for axis in array.reshape(-1))


def _unsqueeze(node: ir.Node, arrays: Arrays) -> Any:
    axes = axes_of(node, arrays, 1)
    return None if axes is None else np.expand_dims(arrays[0], axes)


def _squeeze(node: ir.Node, arrays: Arrays) -> Any:
    return np.squeeze(arrays[0], axes_of(node, arrays, 1))


def _reshape(node: ir.Node, arrays: Arrays) -> Any:
    array, target = arrays
    dims = [int(dim) for dim in target]
    if not attribute(node, "allowzero"):
        dims = [array.shape[axis] if dim == 0 else dim for axis, dim in enumerate(dims)]
    return array.reshape(dims)


def _flatten(node: ir.Node, arrays: Arrays) -> Any:
    array = arrays[0]
    axis = attribute(node, "axis")
    axis = axis + array.ndim if axis < 0 else axis
    return array.reshape(math.prod(array.shape[:axis]), -1)


def _expand(node: ir.Node, arrays: Arrays) -> Any:
    array, target = arrays
    shape = np.broadcast_shapes(array.shape, tuple(int(dim) for dim in target))
    return np.ascontiguousarray(np.broadcast_to(array, shape))


def _slice(node: ir.Node, arrays: Arrays) -> Any:
    array = arrays[0]
    if attribute(node, "starts") is not None:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        axes, steps = attribute(node, "axes"), None
    else:
        starts, ends, axes, steps = (_ints(arrays, index) for index in range(1, 5))
    axes = axes if axes is not None else range(len(starts))
    steps = steps if steps is not None else [1] * len(starts)
    index = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = _python_slice(start, end, step, array.shape[axis])
    return array[tuple(index)]


def _python_slice(start: int, end: int, step: int, size: int) -> slice:
    """ONNX clamps to -1 (that is, before the first) going backwards, where Python would wrap around."""
    if step < 0 and end < -size:
        return slice(start, None, step)
    return slice(start, end, step)


def _ints(arrays: Arrays, index: int) -> list[int] | None:
    array = arrays[index] if index < len(arrays) else None
    return None if array is None else [int(each) for each in array]


def _gather(node: ir.Node, arrays: Arrays) -> Any:
    array, indices = arrays
    return np.take(array, indices.astype(np.int64), axis=attribute(node, "axis"))


def _concat(node: ir.Node, arrays: Arrays) -> Any:
    return np.concatenate(arrays, axis=attribute(node, "axis"))


def _split(node: ir.Node, arrays: Arrays) -> Any:
    array = arrays[0]
    axis = attribute(node, "axis")
    sizes = attribute(node, "split") or _ints(arrays, 1)
    if sizes is None:
        size = -(-array.shape[axis] // len(node.outputs))
        sizes = [size] * len(node.outputs)
    return tuple(np.split(array, np.cumsum(sizes)[:-1], axis=axis))


def _constant_of_shape(node: ir.Node, arrays: Arrays) -> Any:
    value = attribute(node, "value")
    fill = np.zeros(1, np.float32) if value is None else value.numpy()
    return np.full(tuple(int(dim) for dim in arrays[0]), fill.reshape(-1)[0], fill.dtype)


def _range(node: ir.Node, arrays: Arrays) -> Any:
    start, limit, delta = (array.reshape(-1)[0] for array in arrays)
    count = max(math.ceil((limit - start) / delta), 0)
    return (np.arange(count) * delta + start).astype(np.asarray(start).dtype)


def _transpose(node: ir.Node, arrays: Arrays) -> Any:
    return np.ascontiguousarray(np.transpose(arrays[0], attribute(node, "perm")))


def _tile(node: ir.Node, arrays: Arrays) -> Any:
    return np.tile(arrays[0], tuple(int(each) for each in arrays[1]))


def _reduce(function: Callable[..., Any]) -> Function:
    def run(node: ir.Node, arrays: Arrays) -> Any:
        array = arrays[0]
        axes = axes_of(node, arrays, 1)
        if not axes and attribute(node, "noop_with_empty_axes"):
            return array
        return np.asarray(
            function(array, axis=axes or None, keepdims=bool(attribute(node, "keepdims")))
        ).astype(array.dtype)

    return run


def _clip(node: ir.Node, arrays: Arrays) -> Any:
    if opset(node) < 11:
        return np.clip(arrays[0], attribute(node, "min"), attribute(node, "max"))
    low, high = (arrays[index] if len(arrays) > index else None for index in (1, 2))
    result = arrays[0]
    result = result if low is None else np.maximum(result, low)
    return result if high is None else np.minimum(result, high)


def _softmax(node: ir.Node, arrays: Arrays) -> Any:
    if opset(node) < 13:
        return None
    axis = attribute(node, "axis")
    shifted = np.exp(arrays[0] - np.max(arrays[0], axis=axis, keepdims=True))
    return shifted / np.sum(shifted, axis=axis, keepdims=True)


def _same_dtype(function: Callable[[np.ndarray], np.ndarray]) -> Function:
    def run(node: ir.Node, arrays: Arrays) -> Any:
        return function(arrays[0]).astype(arrays[0].dtype)

    return run


FUNCTIONS: dict[str, Function] = {
    **indexing.FUNCTIONS,
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _elementwise(np.cos),
    "Div": _divide,
    "Equal": _elementwise(np.equal),
    "Erf": _same_dtype(np.vectorize(math.erf, otypes=[np.float64])),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": lambda node, arrays: arrays[0],
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Log": _elementwise(np.log),
    "MatMul": _elementwise(np.matmul),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mod": _modulo,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _power,
    "Range": _range,
    "Reciprocal": _elementwise(lambda array: np.asarray(1, array.dtype) / array),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Relu": _elementwise(lambda array: np.maximum(array, np.asarray(0, array.dtype))),
    "Reshape": _reshape,
    "Round": _elementwise(np.rint),
    "Sigmoid": _same_dtype(lambda array: 1 / (1 + np.exp(-array))),
    "Sign": _elementwise(np.sign),
    "Sin": _elementwise(np.sin),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Sum": _variadic(np.add),
    "Tan": _elementwise(np.tan),
    "Tanh": _elementwise(np.tanh),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
    "Xor": _elementwise(np.logical_xor),
}
"""Operators computed here. Random operators and Dropout are missing on purpose: they are never folded."""

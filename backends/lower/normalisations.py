"""Normalisations that read statistics from inputs, or compute them by reductions and then normalise elementwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.response import LocalResponseKernel
from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Lowered, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Index, Tensor, lazy


def _batch_normalization(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Inference form: one multiplication and one addition an element."""
    if attribute(node, "training_mode", 0):
        return _training.lower(ctx, node)
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise Refused("its further outputs serve training and are not computed")
    parameters = [ctx.tensor(value).constant for value in node.inputs[1:5] if value is not None]
    constants = [parameter for parameter in parameters if parameter is not None]
    if len(constants) < len(parameters):
        return _run_time_statistics.lower(ctx, node)
    scale, bias, mean, variance = constants
    x = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    factor = scale / np.sqrt(variance + np.asarray(attribute(node, "epsilon", 1e-5), variance.dtype))
    shape = (-1, *[1] * (x.rank - 2))
    multiplier = ctx.constant(factor.astype(x.dtype).reshape(shape))
    offset = ctx.constant((bias - mean * factor).astype(x.dtype).reshape(shape))

    def read(k: KernelBuilder, index: Index) -> Expr:
        channel = [index[1], *[0] * (x.rank - 2)]
        return x.read(k, index) * multiplier.read(k, channel) + offset.read(k, channel)

    return [lazy(x.shape, x.dtype, read, x.cost + 2, x.block)]


def _with_run_time_statistics(build: Composite) -> Sequence[ir.Value | None]:
    x, *parameters = (build.input(i) for i in range(5))
    assert x is not None
    rank = len(build.shape(x))
    dtype = build.dtype(x)
    present = [build("Cast", p, to=_onnx_type(dtype)) for p in parameters if p is not None]
    scale, bias, mean, variance = (build.reshape(p, [-1, *[1] * (rank - 2)]) for p in present)
    deviation = build("Sqrt", build("Add", variance, _number(build.attribute("epsilon", 1e-5), dtype)))
    factor = build("Div", scale, deviation)
    return [build("Add", build("Mul", build("Sub", x, mean), factor), bias)]


_run_time_statistics = composite(_with_run_time_statistics)


def _with_statistics_of_the_batch(build: Composite) -> Sequence[ir.Value | None]:
    """The statistics of the data itself, and the running ones moved towards them."""
    x, scale, bias, *running = (build.required(i) for i in range(5))
    shape = build.shape(x)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    per_channel = [-1, *[1] * (len(shape) - 2)]
    factors = [
        build.reshape(build("Cast", each, to=_onnx_type(build.dtype(x))), per_channel)
        for each in (scale, bias)
    ]
    normal = _normalized(build, x, axes, build.dtype(x))
    moved = [_moved(build, *pair) for pair in zip(running, _statistics(build, x, axes), strict=True)]
    return [build("Add", build("Mul", normal, factors[0]), factors[1]), *moved]


_training = composite(_with_statistics_of_the_batch)


def _statistics(build: Composite, x: ir.Value, axes: Sequence[int]) -> tuple[ir.Value, ir.Value]:
    """Mean and variance by channel."""
    over = np.array(axes, np.int64)
    mean = build("ReduceMean", x, over)
    centred = build("Sub", x, mean)
    return mean, build("ReduceMean", build("Mul", centred, centred), over)


def _moved(build: Composite, running: ir.Value, new: ir.Value) -> ir.Value:
    dtype, momentum = build.dtype(running), build.attribute("momentum", 0.9)
    found = build.reshape(build("Cast", new, to=_onnx_type(dtype)), [-1])
    kept = build("Mul", running, _number(momentum, dtype))
    return build("Add", kept, build("Mul", found, _number(1 - momentum, dtype)))


def _instance_normalization(build: Composite) -> Sequence[ir.Value | None]:
    """One mean and variance for each sample and channel."""
    x, scale, bias = (build.input(i) for i in range(3))
    assert x is not None
    assert scale is not None
    assert bias is not None
    shape = build.shape(x)
    per_channel = [-1, *[1] * (len(shape) - 2)]
    normal = _normalized(build, x, range(2, len(shape)), build.dtype(x))
    return [
        build(
            "Add", build("Mul", normal, build.reshape(scale, per_channel)), build.reshape(bias, per_channel)
        )
    ]


def _group_normalization(build: Composite) -> Sequence[ir.Value | None]:
    """One mean and variance for each sample and group. Scale and bias are by group before opset 21, by channel since."""
    x, scale, bias = (build.input(i) for i in range(3))
    assert x is not None
    assert scale is not None
    assert bias is not None
    shape, groups = build.shape(x), build.attribute("num_groups")
    split = [shape[0], groups, shape[1] // groups, *shape[2:]]
    normal = _normalized(build, build.reshape(x, split), range(2, len(split)), build.dtype(x))
    by_group = build.shape(scale) == (groups,) and groups != shape[1]
    parameter = [1, groups, 1 if by_group else shape[1] // groups, *[1] * (len(shape) - 2)]
    scaled = build("Mul", normal, build.reshape(scale, parameter))
    return [build.reshape(build("Add", scaled, build.reshape(bias, parameter)), shape)]


def _normalized(build: Composite, x: ir.Value, axes: Sequence[int], dtype: str) -> ir.Value:
    """(x - mean) / sqrt(variance + epsilon), the statistics over `axes`; half precision in float32."""
    wide = "float64" if dtype == "float64" else "float32"
    x = x if dtype == wide else build("Cast", x, to=_onnx_type(wide))
    over = np.array(axes, np.int64)
    centred = build("Sub", x, build("ReduceMean", x, over))
    variance = build("ReduceMean", build("Mul", centred, centred), over)
    epsilon = _number(build.attribute("epsilon", 1e-5), wide)
    factor = build("Reciprocal", build("Sqrt", build("Add", variance, epsilon)))
    normal = build("Mul", centred, factor)
    return normal if dtype == wide else build("Cast", normal, to=_onnx_type(dtype))


def _mean_variance_normalization(build: Composite) -> Sequence[ir.Value | None]:
    x = build.input(0)
    assert x is not None
    axes = np.array(build.attribute("axes", [0, 2, 3]), np.int64)
    centred = build("Sub", x, build("ReduceMean", x, axes))
    variance = build("ReduceMean", build("Mul", centred, centred), axes)
    deviation = build("Add", build("Sqrt", variance), _number(1e-9, build.dtype(x)))
    return [build("Div", centred, deviation)]


def _lp_normalization(build: Composite) -> Sequence[ir.Value | None]:
    """Rows of norm 0 become 0."""
    x = build.input(0)
    assert x is not None
    axis = np.array([build.attribute("axis", -1)], np.int64)
    norm = build("ReduceL1" if build.attribute("p", 2) == 1 else "ReduceL2", x, axis)
    zero, one = _number(0, build.dtype(x)), _number(1, build.dtype(x))
    empty = build("Equal", norm, zero)
    return [build("Where", empty, zero, build("Div", x, build("Where", empty, one, norm)))]


def _local_response(ctx: Lowering, node: ir.Node) -> None:
    """In blocks of channels where a vector on either side holds all neighbours, else from primitives."""
    x = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    size = attribute(node, "size")
    if x.dtype != "float32" or x.rank < 3 or size // 2 > ctx.lanes or ctx.lanes == 1:
        (ctx.values[node.outputs[0]],) = _response_of_primitives.lower(ctx, node)  # type: ignore[assignment]
        return
    source = ctx.blocked(x)
    after = epilogue(ctx, node, ctx.lanes)
    out = ctx.result(after.value, after.shape, after.result.dtype, ctx.lanes)
    alpha, beta, bias = (attribute(node, *each) for each in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    kernel = LocalResponseKernel(ctx.lanes, source, size, alpha, beta, bias, after, storage_of(out))
    with ctx.kernel("lrn") as k:
        kernel.emit(k)


def _with_neighbouring_squares(build: Composite) -> Sequence[ir.Value | None]:
    """Divides by a power of the squares summed over neighbouring channels."""
    x = build.input(0)
    assert x is not None
    shape, dtype, size = build.shape(x), build.dtype(x), build.attribute("size")
    before, after = (size - 1) // 2, size // 2
    pads = np.zeros((2, len(shape)), np.int64)
    pads[:, 1] = before, after
    squares = build("Pad", build("Mul", x, x), pads.reshape(-1))
    total = build("Sum", *(build.slice(squares, 1, i, i + shape[1]) for i in range(size)))
    alpha = _number(build.attribute("alpha", 1e-4) / size, dtype)
    base = build("Add", build("Mul", total, alpha), _number(build.attribute("bias", 1.0), dtype))
    return [build("Div", x, build("Pow", base, _number(build.attribute("beta", 0.75), dtype)))]


_response_of_primitives = composite(_with_neighbouring_squares)


def _dropout(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """At inference everything passes, and the mask is true."""
    x = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    training = ctx.tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    ratio = ctx.tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    keeps_all = ratio is not None and ratio.constant is not None and not ratio.constant.any()
    if training is not None and not keeps_all and (training.constant is None or training.constant.any()):
        raise Refused("training mode drops elements at random; export the model for inference")
    mask = None if len(node.outputs) < 2 else ctx.constant(np.ones(shape_of(node.outputs[0]), bool))
    return [x, mask]


def _number(value: float, dtype: str) -> np.ndarray:
    return np.array(value, dtype)


def _onnx_type(dtype: str) -> int:
    return ir.DataType.from_numpy(np.dtype(dtype)).value


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": Lowered(_batch_normalization),
    "Dropout": Lowered(_dropout),
    "GroupNormalization": composite(_group_normalization),
    "InstanceNormalization": composite(_instance_normalization),
    "LRN": Anchor(_local_response),
    "LpNormalization": composite(_lp_normalization),
    "MeanVarianceNormalization": composite(_mean_variance_normalization),
}

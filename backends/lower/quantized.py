"""ONNX Runtime's quantised elementwise operators, poolings and Concat: what the integers stand for is computed on in
float32 and rounded again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.rows import SUM
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator, Refused, attribute, dtype_of_value, shape_of
from graphopt.backends.lower.quantize import (
    QUANTIZE_COST,
    centred,
    dequantized,
    folded,
    operand,
    quantized,
    required,
)
from graphopt.backends.lower.views import first_input
from graphopt.backends.lower.windows import begin_pads
from graphopt.backends.tensor import Index, Tensor, broadcast_index, lazy, unravel

Real = Callable[[KernelBuilder, Index], Expr]
"""Gives the float32 number an element stands for."""


def _reals(ctx: Lowering, node: ir.Node, position: int) -> tuple[Tensor, Real]:
    """The quantised tensor at `position`, whose scale and zero point follow it, and its real numbers."""
    x = ctx.cheap(required(ctx, node, position, "operand"))
    scale, zero_point = required(ctx, node, position + 1, "scale"), operand(ctx, node, position + 2)

    def read(k: KernelBuilder, index: Index) -> Expr:
        at = broadcast_index(index, x.shape)
        return dequantized(x.read(k, at), _scalar(k, scale), _optional(k, zero_point))

    return x, read


def _scalar(k: KernelBuilder, parameter: Tensor) -> Expr:
    if parameter.size != 1:
        raise Refused("one scale a channel is not supported here")
    return parameter.read(k, [0] * parameter.rank)


def _optional(k: KernelBuilder, parameter: Tensor | None) -> Expr | None:
    return None if parameter is None else _scalar(k, parameter)


def _rounded(
    ctx: Lowering, node: ir.Node, position: int, dtype: str
) -> Callable[[KernelBuilder, Expr], Expr]:
    """Rounds a real number with the output's parameters, which lie at `position`."""
    scale, zero_point = required(ctx, node, position, "output scale"), operand(ctx, node, position + 1)
    return lambda k, value: quantized(value / _scalar(k, scale), _optional(k, zero_point), dtype)


def _binary(combine: Callable[[Expr, Expr], Expr]) -> Lowered:
    """QLinearAdd and QLinearMul, with numpy's broadcasting."""

    def lower(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
        (a, left), (b, right) = _reals(ctx, node, 0), _reals(ctx, node, 3)
        rounded = _rounded(ctx, node, 6, a.dtype)
        shape = tuple(np.broadcast_shapes(a.shape, b.shape))
        block = max((t.block for t in (a, b) if t.shape == shape), default=0)

        def read(k: KernelBuilder, index: Index) -> Expr:
            return rounded(k, combine(left(k, index), right(k, index)))

        return [lazy(shape, a.dtype, read, QUANTIZE_COST + 5, block)]

    return Lowered(lower)


def _unary(function: Callable[[KernelBuilder, ir.Node, Expr], Expr]) -> Lowered:
    """QLinearSigmoid and QLinearLeakyRelu."""

    def lower(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
        x, real = _reals(ctx, node, 0)
        rounded = _rounded(ctx, node, 3, x.dtype)

        def read(k: KernelBuilder, index: Index) -> Expr:
            return rounded(k, function(k, node, real(k, index)))

        return [lazy(x.shape, x.dtype, read, QUANTIZE_COST + 16, x.block)]

    return Lowered(lower)


def _leaky_relu(k: KernelBuilder, node: ir.Node, x: Expr) -> Expr:
    x = k.bind(x)
    slope = const(attribute(node, "alpha", 0.01), "float32")
    return tirx.Select(x < const(0.0, "float32"), x * slope, x)


def _concat(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """QLinearConcat: the output's parameters come first, then data, scale and zero point of every part."""
    parts = [_reals(ctx, node, position) for position in range(2, len(node.inputs), 3)]
    dtype = parts[0][0].dtype
    rounded = _rounded(ctx, node, 0, dtype)
    axis = attribute(node, "axis") % parts[0][0].rank
    shape = list(parts[0][0].shape)
    shape[axis] = sum(part.shape[axis] for part, _ in parts)
    blocked = axis == 1 and all(part.block and part.shape[1] % part.block == 0 for part, _ in parts)
    out = ctx.result(node.outputs[0], shape, dtype, ctx.lanes if blocked else 0)
    start = 0
    for part, real in parts:
        levels = _requantized(part, real, rounded)
        ctx.copy(levels, ctx.part(out, axis, start, part.shape))
        start += part.shape[axis]
    return [None]


def _requantized(part: Tensor, real: Real, rounded: Callable[[KernelBuilder, Expr], Expr]) -> Tensor:
    return lazy(
        part.shape,
        part.dtype,
        lambda k, index: rounded(k, real(k, index)),
        part.cost + QUANTIZE_COST,
        part.block,
    )


def _global_average_pool(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """QLinearGlobalAveragePool: int32 sums, scaled by the ratio of the scales over the number of elements."""
    x = ctx.in_memory(first_input(ctx, node))
    channels_last = attribute(node, "channels_last", 0)
    spatial = list(range(1, x.rank - 1) if channels_last else range(2, x.rank))
    scale, zero_point = required(ctx, node, 1, "scale"), operand(ctx, node, 2)
    rounded = _rounded(ctx, node, 3, x.dtype)
    extents = [x.shape[axis] for axis in spatial]
    count = math.prod(extents)
    out = ctx.result(node.outputs[0], [1 if a in spatial else d for a, d in enumerate(x.shape)], x.dtype)

    def source(place: Sequence[Expr], position: Expr) -> list[Expr]:
        index = list(place)
        for axis, i in zip(spatial, unravel(position, extents), strict=True):
            index[axis] = i
        return index

    with ctx.kernel("quantized_pool") as k, k.loop(out.size, "parallel", "element") as element:
        place = [k.bind(i) for i in split_index(element, out.shape)]
        shift = _optional(k, zero_point)
        total = folded(
            k, SUM, count, "int32", ctx.lanes, lambda p: centred(x.reader(k, source(place, p)), shift)
        )
        value = cast(total, "float32") * _scalar(k, scale) / const(float(count), "float32")
        target = storage_of(out)
        k.store(target.buffer, target.layout.position(place), rounded(k, value))
    return [None]


def _average_pool(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """QLinearAveragePool over windows of any rank, channels first."""
    if attribute(node, "channels_last", 0):
        raise Refused("channels_last is not supported")
    x = ctx.in_memory(first_input(ctx, node))
    scale, zero_point = required(ctx, node, 1, "scale"), operand(ctx, node, 2)
    dtype = dtype_of_value(node.outputs[0])
    rounded = _rounded(ctx, node, 3, dtype)
    out = ctx.result(node.outputs[0], shape_of(node.outputs[0]), dtype)
    kernel = attribute(node, "kernel_shape")
    strides = attribute(node, "strides", [1] * len(kernel))
    pads = begin_pads(node, x.shape[2:], out.shape[2:], kernel)
    padded = bool(attribute(node, "count_include_pad", 0))
    with ctx.kernel("quantized_pool") as k, k.loop(out.size, "parallel", "element") as element:
        n, channel, *place = (k.bind(i) for i in split_index(element, out.shape))
        shift = _optional(k, zero_point)
        sums = k.local(2, "int32")
        k.assign(sums, 0, const(0, "int32"))
        k.assign(sums, 1, const(0, "int32"))
        with k.loop(math.prod(kernel), "serial", "tap") as tap:
            taps = split_index(tap, kernel)
            at = [k.bind(p * s + t - b) for p, s, t, b in zip(place, strides, taps, pads, strict=True)]
            inside = [c for i, d in zip(at, x.shape[2:], strict=True) for c in (tirx.GE(i, 0), tirx.LT(i, d))]
            with k.when(tirx.op.all(*inside)):
                k.assign(sums, 0, sums[0] + centred(x.reader(k, [n, channel, *at]), shift))
                k.assign(sums, 1, sums[1] + 1)
        count = const(math.prod(kernel), "int32") if padded else sums[1]
        value = cast(sums[0], "float32") * _scalar(k, scale) / cast(count, "float32")
        target = storage_of(out)
        k.store(target.buffer, target.layout.position([n, channel, *place]), rounded(k, value))
    return [None]


def _softmax(build: Composite) -> Sequence[ir.Value | None]:
    """QLinearSoftmax in float32; before opset 13 all axes from the given one on are one row."""
    x = build.required(0)
    shape, axis = build.shape(x), build.attribute("axis", -1) % len(build.shape(x))
    real = build("DequantizeLinear", *build.inputs[:3])
    if build.attribute("opset", 13) < 13:
        rows = build.reshape(real, [math.prod(shape[:axis]), -1])
        found = build.reshape(build("Softmax", rows, axis=-1), shape)
    else:
        found = build("Softmax", real, axis=axis)
    return [build("QuantizeLinear", found, *build.inputs[3:5])]


MICROSOFT_OPERATORS: dict[str, Operator] = {
    "QLinearAdd": _binary(lambda a, b: a + b),
    "QLinearAveragePool": Lowered(_average_pool),
    "QLinearConcat": Lowered(_concat),
    "QLinearGlobalAveragePool": Lowered(_global_average_pool),
    "QLinearLeakyRelu": _unary(_leaky_relu),
    "QLinearMul": _binary(lambda a, b: a * b),
    "QLinearSoftmax": composite(_softmax),
    "QLinearSigmoid": _unary(lambda k, node, x: mathematics.sigmoid(k, x)),
}
"""Operators of ONNX Runtime's own domain."""

"""Elementwise activation functions, and normalisations that are elementwise at inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, const, dtype_of
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import Lowered, Operator, Pointwise, Refused, attribute, constant_input
from graphopt.backends.tensor import Index, Tensor, lazy

Compute = Callable[[KernelBuilder, ir.Node, Sequence[Any]], Expr]


def _relu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = arguments[0]
    return tirx.op.max(x, const(0, dtype_of(x)))


def _clip(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x, *bounds = arguments
    dtype = dtype_of(x)
    low = bounds[0] if len(bounds) > 0 else None
    high = bounds[1] if len(bounds) > 1 else None
    if low is None and "min" in node.attributes:
        low = const(attribute(node, "min"), dtype)
    if high is None and "max" in node.attributes:
        high = const(attribute(node, "max"), dtype)
    x = x if low is None else tirx.op.max(x, low)
    return x if high is None else tirx.op.min(x, high)


def _leaky_relu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    slope = const(attribute(node, "alpha", 0.01), dtype_of(x))
    return tirx.Select(x < const(0, dtype_of(x)), x * slope, x)


def _prelu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x, slope = k.bind(arguments[0]), arguments[1]
    return tirx.Select(x < const(0, dtype_of(x)), x * slope, x)


def _hard_sigmoid(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return _bounded_line(arguments[0], alpha, beta)


def _hard_swish(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    return x * _bounded_line(x, 1 / 6, 0.5)


def _bounded_line(x: Expr, alpha: float, beta: float) -> Expr:
    dtype = dtype_of(x)
    line = x * const(alpha, dtype) + const(beta, dtype)
    return tirx.op.max(const(0, dtype), tirx.op.min(const(1, dtype), line))


def _gelu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    dtype = dtype_of(x)

    def c(value: float) -> Expr:
        return const(value, dtype)

    if attribute(node, "approximate", "none") == "tanh":
        inner = c(np.sqrt(2 / np.pi)) * (x + c(0.044715) * x * x * x)
        return c(0.5) * x * (c(1) + mathematics.tanh(k, inner))
    return c(0.5) * x * (c(1) + mathematics.erf(k, x * c(np.sqrt(0.5))))


def _swish(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    return x * mathematics.sigmoid(k, x * const(attribute(node, "alpha", 1.0), dtype_of(x)))


def _batch_normalization(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Inference form: one multiplication and one addition a channel."""
    if attribute(node, "training_mode", 0):
        raise Refused("training_mode=1 computes batch statistics; export the model for inference")
    x = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (constant_input(ctx, node, i + 1, n) for i, n in enumerate(names))
    factor = scale / np.sqrt(variance + np.asarray(attribute(node, "epsilon", 1e-5), variance.dtype))
    shape = (-1, *[1] * (x.rank - 2))
    multiplier = ctx.constant(factor.astype(x.dtype).reshape(shape))
    offset = ctx.constant((bias - mean * factor).astype(x.dtype).reshape(shape))

    def read(k: KernelBuilder, index: Index) -> Expr:
        channel = [index[1], *[0] * (x.rank - 2)]
        return x.read(k, index) * multiplier.read(k, channel) + offset.read(k, channel)

    return [lazy(x.shape, x.dtype, read, x.cost + 2, x.block)]


OPERATORS: dict[str, Operator] = {
    "Relu": Pointwise(_relu),
    "Clip": Pointwise(_clip),
    "LeakyRelu": Pointwise(_leaky_relu, 2),
    "PRelu": Pointwise(_prelu, 2),
    "HardSigmoid": Pointwise(_hard_sigmoid, 3),
    "HardSwish": Pointwise(_hard_swish, 4),
    "Sigmoid": Pointwise(lambda k, node, a: mathematics.sigmoid(k, a[0]), 14),
    "Tanh": Pointwise(lambda k, node, a: mathematics.tanh(k, a[0]), 14),
    "Gelu": Pointwise(_gelu, 20),
    "Swish": Pointwise(_swish, 16),
    "BatchNormalization": Lowered(_batch_normalization),
}

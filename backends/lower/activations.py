"""Elementwise activation functions. NaN passes through all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.lower.elements import Compute, floating, is_float, number, zero
from graphopt.backends.lower.operator import Operator, attribute


def _relu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return tirx.op.max(zero(arguments[0]), arguments[0])


def _clip(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    """Bounds are attributes before opset 11, optional inputs since; the upper one wins where they cross."""
    x, low, high = (*arguments, None, None)[:3]
    if "min" in node.attributes:
        low = number(attribute(node, "min"), x)
    if "max" in node.attributes:
        high = number(attribute(node, "max"), x)
    x = x if low is None else tirx.op.max(low, x)
    return x if high is None else tirx.op.min(high, x)


def _negative_part(alpha: float) -> Compute:
    """x, or x times `alpha` (by default) below 0."""

    def compute(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
        x = k.bind(arguments[0])
        return tirx.Select(x < zero(x), x * number(attribute(node, "alpha", alpha), x), x)

    return compute


def _prelu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x, slope = k.bind(arguments[0]), arguments[1]
    return tirx.Select(x < zero(x), x * slope, x)


def _expm1_below_zero(k: KernelBuilder, x: Expr, divisor: float = 1.0) -> Expr:
    """e**(x / divisor) - 1 for x <= 0, 0 above; near 0 from tanh, which keeps small results exact."""
    below = k.bind(tirx.op.min(zero(x), x))
    scaled = k.bind(below if divisor == 1.0 else below / number(divisor, x))
    half = k.bind(mathematics.tanh(k, scaled * number(0.5, x)))
    near = number(2.0, x) * half / (number(1.0, x) - half)
    return tirx.Select(scaled > number(-0.5, x), near, mathematics.exp(k, scaled) - number(1.0, x))


def _elu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    below = number(attribute(node, "alpha", 1.0), x) * _expm1_below_zero(k, x)
    return tirx.Select(x > zero(x), x, below)


def _selu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    alpha = number(attribute(node, "alpha", 1.67326319217681884765625), x)
    gamma = number(attribute(node, "gamma", 1.05070102214813232421875), x)
    return gamma * tirx.Select(x > zero(x), x, alpha * _expm1_below_zero(k, x))


def _celu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    alpha = attribute(node, "alpha", 1.0)
    return tirx.op.max(zero(x), x) + number(alpha, x) * _expm1_below_zero(k, x, alpha)


def _softsign(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    return x / (number(1.0, x) + tirx.op.abs(x))


def _thresholded_relu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    return tirx.Select(x <= number(attribute(node, "alpha", 1.0), x), zero(x), x)


def _shrink(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    bias, threshold = attribute(node, "bias", 0.0), attribute(node, "lambd", 0.5)
    if not is_float(x):
        bias = int(bias)
        above, below = number(math.floor(threshold), x), number(math.ceil(-threshold), x)
    else:
        above, below = number(threshold, x), number(-threshold, x)
    inner = tirx.Select(x > above, x - number(bias, x), zero(x))
    return tirx.Select(x < below, x + number(bias, x), inner)


def _hard_sigmoid(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return _bounded_line(arguments[0], attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5))


def _hard_swish(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    return x * _bounded_line(x, 1 / 6, 0.5)


def _bounded_line(x: Expr, alpha: float, beta: float) -> Expr:
    return mathematics.clamp(x * number(alpha, x) + number(beta, x), 0, 1)


def _gelu(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    if attribute(node, "approximate", "none") == "tanh":
        inner = number(math.sqrt(2 / math.pi), x) * (x + number(0.044715, x) * x * x * x)
        gate = mathematics.tanh(k, inner)
    else:
        gate = mathematics.erf(k, x * number(math.sqrt(0.5), x))
    return number(0.5, x) * x * (number(1.0, x) + gate)


def _swish(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(arguments[0])
    return x * mathematics.sigmoid(k, x * number(attribute(node, "alpha", 1.0), x))


def _mish(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    """x * tanh(log(1 + e**x)), where the tanh is n / (n + 2) with n = e**x * (e**x + 2)."""
    x = k.bind(arguments[0])
    grown = k.bind(mathematics.exp(k, tirx.op.min(number(20.0, x), x)))
    n = k.bind(grown * (grown + number(2.0, x)))
    return x * (n / (n + number(2.0, x)))


OPERATORS: dict[str, Operator] = {
    "Celu": floating(_celu, 24),
    "Clip": floating(_clip),
    "Elu": floating(_elu, 24),
    "Gelu": floating(_gelu, 20),
    "HardSigmoid": floating(_hard_sigmoid, 3),
    "HardSwish": floating(_hard_swish, 4),
    "LeakyRelu": floating(_negative_part(0.01), 2),
    "Mish": floating(_mish, 30),
    "PRelu": floating(_prelu, 2),
    "Relu": floating(_relu),
    "Selu": floating(_selu, 24),
    "Shrink": floating(_shrink, 2),
    "Softsign": floating(_softsign, 4),
    "Swish": floating(_swish, 16),
    "ThresholdedRelu": floating(_thresholded_relu),
}

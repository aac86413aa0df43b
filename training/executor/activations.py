"""Activation functions, elementwise ones and those along an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always

AXIS_IS_ONE = 13
"""Opset from which Softmax and its kin take one axis; before, they take all axes from theirs on as one."""


def _clip(node: Node) -> Compute:
    """Bounds are attributes before opset 11, optional inputs since; the upper one wins where they cross."""
    lowest, highest = node.get("min"), node.get("max")

    def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        low = x.new_tensor(lowest) if low is None and lowest is not None else low
        high = x.new_tensor(highest) if high is None and highest is not None else high
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return clip


def _leaky_relu(node: Node) -> Compute:
    slope = node.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, slope)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _elu(node: Node) -> Compute:
    alpha = node.get("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


def _celu(node: Node) -> Compute:
    alpha = node.get("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


def _selu(node: Node) -> Compute:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return lambda x: gamma * functional.elu(x, alpha)


def _gelu(node: Node) -> Compute:
    approximate = node.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


def _hard_sigmoid(node: Node) -> Compute:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _thresholded_relu(node: Node) -> Compute:
    alpha = node.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, 0)


def _shrink(node: Node) -> Compute:
    bias, bound = node.get("bias", 0.0), node.get("lambd", 0.5)
    return lambda x: torch.where(x > bound, x - bias, torch.where(x < -bound, x + bias, 0))


def _swish(node: Node) -> Compute:
    alpha = node.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def _along_axis(compute: Callable[[Tensor, int], Tensor]) -> Maker:
    def make(node: Node) -> Compute:
        if node.version >= AXIS_IS_ONE:
            axis = node.get("axis", -1)
            return lambda x: compute(x, axis)
        first = node.get("axis", 1)
        return lambda x: compute(x.flatten(first % x.ndim), first % x.ndim).reshape(x.shape)

    return make


def _hardmax(x: Tensor, axis: int) -> Tensor:
    largest = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, largest, 1)


OPERATORS: dict[str, Maker] = {
    "Celu": _celu,
    "Clip": _clip,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": always(functional.hardswish),
    "Hardmax": _along_axis(_hardmax),
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _along_axis(torch.log_softmax),
    "Mish": always(functional.mish),
    "PRelu": always(_prelu),
    "Relu": always(torch.relu),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": always(torch.sigmoid),
    "Softmax": _along_axis(torch.softmax),
    "Softplus": always(lambda x: torch.logaddexp(x, x.new_zeros(()))),
    "Softsign": always(functional.softsign),
    "Swish": _swish,
    "Tanh": always(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
}

"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, expressed by the operators they are defined with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.operator import Operator


def _negative_log_likelihood(build: Composite) -> Sequence[ir.Value | None]:
    x, labels, weights = (build.input(i) for i in range(3))
    assert x is not None
    assert labels is not None
    return [_loss(build, x, build.shape(x), labels, weights)]


def _softmax_cross_entropy(build: Composite) -> Sequence[ir.Value | None]:
    x, labels, weights = (build.input(i) for i in range(3))
    assert x is not None
    assert labels is not None
    logarithms = build("LogSoftmax", x, axis=1)
    loss = _loss(build, logarithms, build.shape(x), labels, weights)
    return [loss, logarithms if len(build.node.outputs) > 1 else None]


def _loss(
    build: Composite, x: ir.Value, shape: Sequence[int], labels: ir.Value, weights: ir.Value | None
) -> ir.Value:
    """-x at the label of every position, times the weight of the label; ignored labels count for nothing."""
    operand = build.input(0)
    assert operand is not None
    dtype = build.dtype(operand)
    labels = build("Cast", labels, to=ir.DataType.INT64.value)
    ignored = build.attribute("ignore_index")
    counted: ir.Value | None = None
    if ignored is not None:
        mask = build("Equal", labels, np.array(ignored, np.int64))
        counted = build("Where", mask, np.array(0, dtype), np.array(1, dtype))
        labels = build("Where", mask, np.array(0, np.int64), labels)
    picked = _pick(build, x, shape, labels)
    weight = build("Gather", weights, labels) if weights is not None else None
    scale = weight if counted is None else counted if weight is None else build("Mul", weight, counted)
    loss = build("Neg", picked if scale is None else _masked(build, picked, scale, counted, dtype))
    return _reduced(build, loss, scale, math.prod(shape) // max(shape[1], 1), dtype)


def _masked(
    build: Composite, picked: ir.Value, scale: ir.Value, counted: ir.Value | None, dtype: str
) -> ir.Value:
    """The product with the scale; what is ignored is 0 even where the picked number is infinite."""
    product = build("Mul", picked, scale)
    if counted is None:
        return product
    zero = np.array(0, dtype)
    return build("Where", build("Equal", counted, zero), zero, product)


def _pick(build: Composite, x: ir.Value, shape: Sequence[int], labels: ir.Value) -> ir.Value:
    """The element of axis 1 that the label of every other position names."""
    at = build("GatherElements", x, build.unsqueeze(labels, 1), axis=1)
    return build.reshape(at, [shape[0], *shape[2:]])


def _reduced(build: Composite, loss: ir.Value, scale: ir.Value | None, count: int, dtype: str) -> ir.Value:
    reduction = build.attribute("reduction", "mean")
    if reduction == "none":
        return loss
    total = build("ReduceSum", loss, keepdims=0)
    if reduction == "sum":
        return total
    divisor = np.array(count, dtype) if scale is None else build("ReduceSum", scale, keepdims=0)
    return build("Div", total, divisor)


OPERATORS: dict[str, Operator] = {
    "NegativeLogLikelihoodLoss": composite(_negative_log_likelihood),
    "SoftmaxCrossEntropyLoss": composite(_softmax_cross_entropy),
}

"""Comparisons, conditions and conversions of element types."""

from __future__ import annotations

import torch

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always


def _cast(node: Node) -> Compute:
    dtype = node.dtype(node.get("to"))
    return lambda x: x.to(dtype)


def _is_infinite(node: Node) -> Compute:
    positive, negative = bool(node.get("detect_positive", 1)), bool(node.get("detect_negative", 1))
    return lambda x: (torch.isposinf(x) & positive) | (torch.isneginf(x) & negative)


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


def _identity(x: Tensor, *parameters: Tensor) -> Tensor:
    return x


def _dropout(node: Node) -> Compute:
    """Nothing is dropped, in training neither; the mask says so."""
    if node.outputs == 1:
        return _identity
    return lambda x, *parameters: (x, torch.ones_like(x, dtype=torch.bool))


OPERATORS: dict[str, Maker] = {
    "And": always(torch.logical_and),
    "Cast": _cast,
    "CastLike": always(lambda x, like: x.to(like.dtype)),
    "Dropout": _dropout,
    "Equal": always(torch.eq),
    "Greater": always(torch.gt),
    "GreaterOrEqual": always(torch.ge),
    "Identity": always(_identity),
    "IsInf": _is_infinite,
    "IsNaN": always(torch.isnan),
    "Less": always(torch.lt),
    "LessOrEqual": always(torch.le),
    "Not": always(torch.logical_not),
    "Or": always(torch.logical_or),
    "Where": always(_where),
    "Xor": always(torch.logical_xor),
}

"""Elementwise arithmetic and functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Integers are rounded towards zero."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _modulo(node: Node) -> Compute:
    """With the sign of the divisor, or with `fmod` that of the dividend."""
    divide = torch.fmod if node.get("fmod", 0) else torch.remainder
    return lambda a, b: divide(a, b)


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent).to(base.dtype)


def _variadic(combine: Callable[[Tensor, Tensor], Tensor]) -> Maker:
    return always(lambda *terms: reduce(combine, terms))


def _mean(*terms: Tensor) -> Tensor:
    return reduce(torch.add, terms) / len(terms)


OPERATORS: dict[str, Maker] = {
    "Abs": always(torch.abs),
    "Acos": always(torch.acos),
    "Acosh": always(torch.acosh),
    "Add": always(torch.add),
    "Asin": always(torch.asin),
    "Asinh": always(torch.asinh),
    "Atan": always(torch.atan),
    "Atanh": always(torch.atanh),
    "Ceil": always(torch.ceil),
    "Cos": always(torch.cos),
    "Cosh": always(torch.cosh),
    "Div": always(_divide),
    "Erf": always(torch.erf),
    "Exp": always(torch.exp),
    "Floor": always(torch.floor),
    "Log": always(torch.log),
    "Max": _variadic(torch.maximum),
    "Mean": always(_mean),
    "Min": _variadic(torch.minimum),
    "Mod": _modulo,
    "Mul": always(torch.mul),
    "Neg": always(torch.neg),
    "Pow": always(_power),
    "Reciprocal": always(torch.reciprocal),
    "Round": always(torch.round),
    "Sign": always(torch.sign),
    "Sin": always(torch.sin),
    "Sinh": always(torch.sinh),
    "Sqrt": always(torch.sqrt),
    "Sub": always(torch.sub),
    "Sum": _variadic(torch.add),
    "Tan": always(torch.tan),
}

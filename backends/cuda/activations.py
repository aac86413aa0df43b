"""Activations whose results are rounded to halves: by instructions that approximate 2**x and 1/x.

GELU of a normal distribution is max(x, 0) - |x| * P(-|x|), where P is 2 to the power of a polynomial: nothing cancels, so that small results
are as right as large ones. The error of each before it is rounded is less than a hundredth of a half's last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of
from graphopt.backends.codegen.mathematics import HALF_PRECISION, polynomial
from graphopt.backends.cuda.attention import HALF_TYPES
from graphopt.backends.cuda.instructions import INVERSE, POWER
from graphopt.backends.lower.operator import Operator, Pointwise, attribute
from graphopt.backends.lower.table import OPERATORS as STANDARD

Single = Callable[[KernelBuilder, ir.Node, Expr], Expr]
"""The result of a node for a float32."""

FLOAT = "float32"

LOG2E = math.log2(math.e)

# log2 of the normal distribution at -x, by x, for 0 <= x <= 6.
_NORMAL_TAIL = (
    -1.0000054029, -1.1510666127, -4.5910050779e-1, -5.3120076067e-2, 7.9738751155e-3, -7.5525069894e-4,
    3.2997843712e-5,
)  # fmt: skip
_TAIL_LIMIT = 6.0
"""Beyond it results are less than half of the smallest half."""


def _f(value: float) -> Expr:
    return const(value, FLOAT)


def _gelu(k: KernelBuilder, node: ir.Node, x: Expr) -> Expr:
    if attribute(node, "approximate", "none") == "tanh":
        scaled = x * (_f(math.sqrt(8 / math.pi)) + _f(0.044715 * math.sqrt(8 / math.pi)) * x * x)
        return x * _logistic(k, k.bind(scaled))
    size = k.bind(tirx.op.min(_f(_TAIL_LIMIT), tirx.op.abs(x)))
    return tirx.op.max(_f(0.0), x) - size * k.call(POWER, FLOAT, polynomial(size, _NORMAL_TAIL))


def _swish(k: KernelBuilder, node: ir.Node, x: Expr) -> Expr:
    return x * _logistic(k, x, attribute(node, "alpha", 1.0))


def _sigmoid(k: KernelBuilder, node: ir.Node, x: Expr) -> Expr:
    return _logistic(k, x)


def _logistic(k: KernelBuilder, x: Expr, factor: float = 1.0) -> Expr:
    """1 / (1 + e**-x), of x times a factor."""
    power = k.call(POWER, FLOAT, x * _f(-LOG2E * factor))
    return k.call(INVERSE, FLOAT, _f(1.0) + power)


def coarse_exp(k: KernelBuilder, x: Expr) -> Expr:
    """e**x of a float32 from which halves are computed."""
    return k.call(POWER, FLOAT, x * _f(LOG2E))


def _where_rounded(name: str, single: Single) -> Operator:
    """The operator, computed so where its results are rounded to halves."""
    usual = STANDARD[""][name]
    assert isinstance(usual, Pointwise)

    def compute(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
        dtype = dtype_of(arguments[0])
        if dtype in HALF_PRECISION or (dtype == FLOAT and _is_rounded(node)):
            return cast(single(k, node, k.bind(cast(arguments[0], FLOAT))), dtype)
        return usual.compute(k, node, arguments)

    return Pointwise(compute, usual.cost)


def _is_rounded(node: ir.Node) -> bool:
    """Whether all that reads the result takes halves."""
    value = node.outputs[0]
    users = [user for user, _ in value.uses()]
    casts = all(user.op_type == "Cast" and user.outputs[0].dtype in HALF_TYPES for user in users)
    return bool(users) and casts and not value.is_graph_output()


_SINGLE: dict[str, Single] = {"Gelu": _gelu, "Sigmoid": _sigmoid, "Swish": _swish}

OPERATORS: dict[str, Operator] = {name: _where_rounded(name, single) for name, single in _SINGLE.items()}

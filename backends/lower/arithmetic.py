"""Elementwise arithmetic, comparison and logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of
from graphopt.backends.lower.operator import Operator, Pointwise, dtype_of_value


def _binary(compute: Callable[[Expr, Expr], Expr], cost: int = 1) -> Pointwise:
    return Pointwise(lambda k, node, a: compute(a[0], a[1]), cost)


def _unary(compute: Callable[[Expr], Expr], cost: int = 1) -> Pointwise:
    return Pointwise(lambda k, node, a: compute(a[0]), cost)


def _variadic(compute: Callable[[Expr, Expr], Expr]) -> Pointwise:
    return Pointwise(lambda k, node, a: reduce(compute, a), 2)


def _function(name: str) -> Pointwise:
    return Pointwise(lambda k, node, a: mathematics.FUNCTIONS[name](k, a[0]), 12)


def _divide(a: Expr, b: Expr) -> Expr:
    return a / b if dtype_of(a).startswith(("float", "bfloat")) else tirx.op.truncdiv(a, b)


def _cast(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    value, target = arguments[0], dtype_of_value(node.outputs[0])
    if target == "bool":
        return tirx.NE(value, const(0, dtype_of(value)))
    return cast(value, target)


def nan_max(a: Expr, b: Expr) -> Expr:
    """The larger value; NaN if either is."""
    return _propagate_nan(tirx.op.max, a, b)


def nan_min(a: Expr, b: Expr) -> Expr:
    """The smaller value; NaN if either is."""
    return _propagate_nan(tirx.op.min, a, b)


def _propagate_nan(pick: Callable[[Expr, Expr], Expr], a: Expr, b: Expr) -> Expr:
    if not dtype_of(a).startswith("float"):
        return pick(a, b)
    return tirx.Select(tirx.NE(a, a), a, tirx.Select(tirx.NE(b, b), b, pick(a, b)))


OPERATORS: dict[str, Operator] = {
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(_divide, 4),
    "Max": _variadic(nan_max),
    "Min": _variadic(nan_min),
    "Sum": _variadic(lambda a, b: a + b),
    "Neg": _unary(lambda a: const(0, dtype_of(a)) - a),
    "Abs": _unary(tirx.op.abs),
    "Sqrt": _unary(tirx.op.sqrt, 8),
    "Reciprocal": _unary(lambda a: const(1, dtype_of(a)) / a, 4),
    "Floor": _unary(tirx.op.floor),
    "Ceil": _unary(tirx.op.ceil),
    "Exp": _function("Exp"),
    "Erf": _function("Erf"),
    "Cast": Pointwise(_cast),
    "Identity": _unary(lambda a: a, 0),
    "Where": Pointwise(lambda k, node, a: tirx.Select(a[0], a[1], a[2])),
    "Equal": _binary(tirx.EQ),
    "Less": _binary(tirx.LT),
    "LessOrEqual": _binary(tirx.LE),
    "Greater": _binary(tirx.GT),
    "GreaterOrEqual": _binary(tirx.GE),
    "And": _binary(tirx.And),
    "Or": _binary(tirx.Or),
    "Not": _unary(tirx.Not),
}

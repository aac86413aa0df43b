"""Elementwise comparison and logic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, dtype_of
from graphopt.backends.codegen.mathematics import HALF_PRECISION, is_nan, opaque
from graphopt.backends.lower.elements import binary, differ, number, unary
from graphopt.backends.lower.operator import Operator, Pointwise, attribute


def _comparison(compare: Callable[[Expr, Expr], Expr]) -> Pointwise:
    def compute(a: Expr, b: Expr) -> Expr:
        if dtype_of(a) == "bool":
            return compare(cast(a, "int8"), cast(b, "int8"))
        return compare(_comparable(a), _comparable(b))

    return binary(compute)


def _comparable(x: Expr) -> Expr:
    """Opaque to TIR: it cannot reason about floats, nor about a vector of integers next to a broadcast number."""
    return opaque(_widened(x))


def _widened(x: Expr) -> Expr:
    return cast(x, "float32") if dtype_of(x) in HALF_PRECISION else x


def _is_infinite(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    x = k.bind(_widened(arguments[0]))
    found: Expr = tirx.const(False, "bool")
    if attribute(node, "detect_positive", 1):
        found = tirx.Or(found, tirx.EQ(x, number(math.inf, x)))
    if attribute(node, "detect_negative", 1):
        found = tirx.Or(found, tirx.EQ(x, number(-math.inf, x)))
    return found


def _is_nan(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return is_nan(k.bind(_widened(arguments[0])))


def _not(x: Expr) -> Expr:
    """As a comparison of bytes: TIR would turn a negated comparison of floats around, which NaN does not allow."""
    return tirx.EQ(cast(x, "int8"), tirx.const(0, "int8"))


def _where(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    condition, x, y = arguments
    if dtype_of(x) == "bool":
        return tirx.Or(tirx.And(condition, x), tirx.And(tirx.Not(condition), y))
    return tirx.Select(condition, x, y)


OPERATORS: dict[str, Operator] = {
    "Equal": _comparison(tirx.EQ),
    "Less": _comparison(tirx.LT),
    "LessOrEqual": _comparison(tirx.LE),
    "Greater": _comparison(tirx.GT),
    "GreaterOrEqual": _comparison(tirx.GE),
    "And": binary(tirx.And),
    "Or": binary(tirx.Or),
    "Xor": binary(differ),
    "Not": unary(_not),
    "IsInf": Pointwise(_is_infinite),
    "IsNaN": Pointwise(_is_nan),
    "Where": Pointwise(_where),
}

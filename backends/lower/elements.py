"""Shorthands for tables of elementwise operators: scalar functions as `Pointwise`, with half precision done in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of
from graphopt.backends.codegen.mathematics import HALF_PRECISION
from graphopt.backends.lower.operator import Pointwise

Compute = Callable[[KernelBuilder, ir.Node, Sequence[Any]], Expr]


def is_float(x: Expr) -> bool:
    """Whether an expression is of any floating type."""
    return dtype_of(x).startswith(("float", "bfloat"))


def zero(x: Expr) -> Expr:
    """0 in the type of `x`."""
    return const(0, dtype_of(x))


def number(value: Any, x: Expr) -> Expr:
    """`value` in the type of `x`."""
    return const(value, dtype_of(x))


def differ(p: Expr, q: Expr) -> Expr:
    """Exclusive or of two conditions."""
    return tirx.Or(tirx.And(p, tirx.Not(q)), tirx.And(tirx.Not(p), q))


def unary(compute: Callable[[Expr], Expr], cost: int = 1) -> Pointwise:
    """One operand, any type."""
    return Pointwise(lambda k, node, a: compute(a[0]), cost)


def binary(compute: Callable[[Expr, Expr], Expr], cost: int = 1) -> Pointwise:
    """Two operands of one type."""
    return Pointwise(lambda k, node, a: compute(a[0], a[1]), cost)


def in_single(compute: Compute) -> Compute:
    """`compute` with half-precision operands widened to float32, and its result rounded once."""

    def wide(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
        dtype = dtype_of(arguments[0])
        if dtype not in HALF_PRECISION:
            return compute(k, node, arguments)
        operands = [None if a is None else cast(a, "float32") for a in arguments]
        return cast(compute(k, node, operands), dtype)

    return wide


def floating(compute: Compute, cost: int = 1) -> Pointwise:
    """Any number of operands; half precision is computed in float32."""
    return Pointwise(in_single(compute), cost)

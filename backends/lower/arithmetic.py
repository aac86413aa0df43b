"""Elementwise arithmetic. Integers wrap; integer division by zero gives 0 instead of a trap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics, trigonometry
from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of
from graphopt.backends.codegen.mathematics import HALF_PRECISION, is_finite, is_nan, opaque
from graphopt.backends.codegen.power import power
from graphopt.backends.lower.elements import binary, differ, floating, is_float, number, unary, zero
from graphopt.backends.lower.operator import Operator, Pointwise, attribute


def exact(compute: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    """`compute` over operands that TIR cannot see through, so that it keeps NaN, infinities and roundings."""
    return lambda a, b: compute(opaque(a), opaque(b, "uint"))


add = exact(lambda a, b: a + b)
subtract = exact(lambda a, b: a - b)


def multiply(a: Expr, b: Expr) -> Expr:
    """a * b; a literal 0 keeps what NaN and infinities make of it."""
    for x, factor in ((a, b), (b, a)):
        if (
            isinstance(factor, tirx.FloatImm)
            and float(factor.value) == 0
            and dtype_of(x) in ("float32", "float64")
        ):
            return tirx.Select(is_finite(x), opaque(x) * factor, number(math.nan, x))
    return opaque(a) * opaque(b, "uint")


def _divide(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    a, b = arguments
    return opaque(a) / opaque(b, "uint") if is_float(a) else _divide_integers(k, a, b)


def _divide_integers(k: KernelBuilder, a: Expr, b: Expr) -> Expr:
    """Rounded towards zero; a / 0 is 0 and the lowest number / -1 wraps, as in numpy.

    The divisor is opaque, since TIR would use the condition around a division to undo the guard within it.
    """
    if isinstance(b, tirx.IntImm) and int(b.value) > 0:
        return tirx.op.truncdiv(a, b)
    a, b = k.bind(a), k.bind(b)
    hidden = opaque(b)
    by_zero = tirx.EQ(b, zero(b))
    if dtype_of(a).startswith("uint"):
        divisor = tirx.Select(tirx.EQ(hidden, zero(b)), number(1, b), hidden)
        return tirx.Select(by_zero, zero(a), k.bind(tirx.op.truncdiv(a, divisor)))
    negates = tirx.EQ(b, number(-1, b))
    traps = tirx.Or(tirx.EQ(hidden, zero(b)), tirx.EQ(hidden, number(-1, b)))
    divisor = tirx.Select(traps, number(1, b), hidden)
    quotient = tirx.Select(negates, zero(a) - a, k.bind(tirx.op.truncdiv(a, divisor)))
    return tirx.Select(by_zero, zero(a), quotient)


def _modulo(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    a, b = (k.bind(argument) for argument in arguments)
    like_dividend = bool(attribute(node, "fmod", 0))
    if is_float(a):
        return _float_modulo(k, a, b, like_dividend)
    rest = k.bind(a - _divide_integers(k, a, b) * b)
    if like_dividend or dtype_of(a).startswith("uint"):
        return tirx.Select(tirx.EQ(b, zero(b)), zero(a), rest)
    differs = tirx.And(tirx.NE(rest, zero(rest)), differ(rest < zero(rest), b < zero(b)))
    return tirx.Select(tirx.EQ(b, zero(b)), zero(a), tirx.Select(differs, rest + b, rest))


def _float_modulo(k: KernelBuilder, a: Expr, b: Expr, like_dividend: bool) -> Expr:
    """In float64, where the product below is exact as long as the quotient has no more than 29 bits."""
    dtype = dtype_of(a)
    a, b = k.bind(cast(a, "float64")), k.bind(cast(b, "float64"))
    size, divisor = k.bind(tirx.op.abs(a)), k.bind(tirx.op.abs(b))
    rest = k.bind(size - tirx.op.trunc(size / divisor) * divisor)
    rest = k.bind(tirx.Select(rest < zero(rest), rest + divisor, rest))
    rest = k.bind(tirx.Select(rest >= divisor, rest - divisor, rest))
    infinite = tirx.And(tirx.EQ(divisor, number(math.inf, b)), size < number(math.inf, a))
    rest = k.bind(tirx.Select(infinite, size, rest))
    rest = k.bind(tirx.Select(a < zero(a), zero(a) - rest, rest))
    if not like_dividend:
        differs = tirx.And(tirx.NE(rest, zero(rest)), differ(rest < zero(rest), b < zero(b)))
        rest = tirx.Select(differs, rest + b, rest)
    return _narrow(rest, dtype)


def _narrow(x: Expr, dtype: str) -> Expr:
    return cast(cast(x, "float32"), dtype) if dtype in HALF_PRECISION else cast(x, dtype)


def nan_max(a: Expr, b: Expr) -> Expr:
    """The larger value; NaN if either is."""
    return tirx.Select(is_nan(a), a, tirx.op.max(a, b)) if is_float(a) else tirx.op.max(a, b)


def nan_min(a: Expr, b: Expr) -> Expr:
    """The smaller value; NaN if either is."""
    return tirx.Select(is_nan(a), a, tirx.op.min(a, b)) if is_float(a) else tirx.op.min(a, b)


def _variadic(combine: Callable[[Expr, Expr], Expr]) -> Pointwise:
    def compute(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
        return reduce(lambda a, b: k.bind(combine(a, b)), [k.bind(argument) for argument in arguments])

    return floating(compute, 2)


def _mean(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    total = reduce(add, arguments)
    return total / number(len(arguments), total)


def _absolute(x: Expr) -> Expr:
    return x if dtype_of(x).startswith("uint") else tirx.op.abs(x)


def _negate(x: Expr) -> Expr:
    """-0.0 for 0.0, as IEEE 754 wants."""
    return x * number(-1, x) if is_float(x) else zero(x) - x


def _sign(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    """-1, 0 or 1; NaN stays NaN."""
    x = k.bind(arguments[0])
    if dtype_of(x).startswith("uint"):
        return tirx.Select(x > zero(x), number(1, x), zero(x))
    return tirx.Select(x > zero(x), number(1, x), tirx.Select(x < zero(x), number(-1, x), x))


def _function(compute: mathematics.Function) -> Pointwise:
    return Pointwise(lambda k, node, a: compute(k, a[0]), 12)


def _rounding(compute: Callable[[Expr], Expr]) -> Pointwise:
    return floating(lambda k, node, a: compute(a[0]))


def _reciprocal(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    return const(1, dtype_of(arguments[0])) / arguments[0]


OPERATORS: dict[str, Operator] = {
    "Add": binary(add),
    "Sub": binary(subtract),
    "Mul": binary(multiply),
    "Div": floating(_divide, 4),
    "Mod": Pointwise(_modulo, 8),
    "Pow": Pointwise(lambda k, node, a: power(k, a[0], a[1]), 12),
    "Max": _variadic(nan_max),
    "Min": _variadic(nan_min),
    "Sum": _variadic(add),
    "Mean": floating(_mean, 2),
    "Neg": unary(_negate),
    "Abs": unary(_absolute),
    "Sign": floating(_sign),
    "Sqrt": floating(lambda k, node, a: tirx.op.sqrt(a[0]), 8),
    "Reciprocal": floating(_reciprocal, 4),
    "Floor": _rounding(tirx.op.floor),
    "Ceil": _rounding(tirx.op.ceil),
    "Round": _rounding(tirx.op.round),
    "Identity": unary(lambda a: a, 0),
    **{name: _function(function) for name, function in mathematics.FUNCTIONS.items()},
    **{name: _function(function) for name, function in trigonometry.FUNCTIONS.items()},
}

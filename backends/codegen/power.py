"""x**y by multiplication where the exponent is a small literal, by float64 polynomials for float32, else by libm."""

from __future__ import annotations

import math

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of
from graphopt.backends.codegen.mathematics import HALF_PRECISION, clamp, polynomial

# 2**f for |f| <= 1/2, and log2(m) / s by s**2 where s = (m - 1) / (m + 1), sqrt(0.5) <= m < sqrt(2).
_EXP2 = (
    1.0, 6.9314718055e-1, 2.4022650699e-1, 5.5504109393e-2, 9.6181285427e-3,
    1.3333452065e-3, 1.5403851847e-4, 1.5309736672e-5, 1.3175835463e-6,
)  # fmt: skip
_LOG2 = (2.8853900818, 9.6179669411e-1, 5.7707794205e-1, 4.1220928357e-1, 3.1990441782e-1, 2.8291854180e-1)
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_MANTISSA = (1 << 52) - 1

LARGEST_UNROLLED = 64
"""The largest literal exponent that becomes multiplications."""

EXPONENT_BITS = 6
"""Bits of a run-time integer exponent of an integer; beyond, only -1, 0 and 1 have powers that fit."""


def power(k: KernelBuilder, x: Expr, y: Expr) -> Expr:
    """x**y in the type of `x`, by the rules of C's pow; integers wrap, and negative exponents truncate to 0."""
    dtype = dtype_of(x)
    if dtype in HALF_PRECISION:
        return cast(power(k, cast(x, "float32"), y), dtype)
    x = k.bind(x)
    literal = _literal(y)
    if literal is not None:
        short = _by_multiplication(k, x, literal)
        if short is not None:
            return short
    if not dtype.startswith("float"):
        return _integer_power(k, x, y)
    if dtype == "float32":
        return cast(_pow(k, k.bind(tirx.Cast("float64", x)), k.bind(cast(y, "float64"))), dtype)
    return c_pow(x, cast(y, dtype))


def positive_power(k: KernelBuilder, x: Expr, y: float) -> Expr:
    """x**y of a positive float: quarters by square roots, which for other signs would not be C's pow."""
    steps = 4 * abs(y)
    if steps not in (1, 2, 3):
        return power(k, x, const(y, dtype_of(x)))
    root = k.bind(tirx.op.sqrt(x))
    result = {1: tirx.op.sqrt(root), 2: root, 3: root * tirx.op.sqrt(root)}[int(steps)]
    return result if y > 0 else const(1, dtype_of(x)) / result


def c_pow(x: Expr, y: Expr) -> Expr:
    """The C library's pow. Not by `tirx.op.pow`, which warns users of every constant exponent."""
    return tirx.call_intrin(dtype_of(x), "tirx.pow", x, y)


def _literal(y: Expr) -> float | None:
    return float(y.value) if isinstance(y, tirx.FloatImm | tirx.IntImm) else None


def _by_multiplication(k: KernelBuilder, x: Expr, y: float) -> Expr | None:
    """x**y for small whole y, and for halves of floats; None for anything else."""
    dtype = dtype_of(x)
    one = const(1, dtype)
    if y == int(y) and 0 <= y <= LARGEST_UNROLLED:
        return _repeated(k, x, int(y), one)
    if not dtype.startswith("float"):
        return None
    if y == int(y) and y >= -LARGEST_UNROLLED:
        return one / _repeated(k, x, -int(y), one)
    roots = {0.5: lambda: tirx.op.sqrt(x), -0.5: lambda: one / tirx.op.sqrt(x)}
    return roots[y]() if y in roots else None


def _repeated(k: KernelBuilder, x: Expr, y: int, one: Expr) -> Expr:
    """Squares of `x` multiplied where `y` has a bit."""
    result: Expr | None = None
    while y:
        if y & 1:
            result = x if result is None else k.bind(result * x)
        y >>= 1
        x = k.bind(x * x) if y else x
    return one if result is None else result


def _integer_power(k: KernelBuilder, x: Expr, y: Expr) -> Expr:
    dtype, exponent_dtype = dtype_of(x), dtype_of(y)
    if exponent_dtype.startswith(("float", "bfloat")):
        return cast(c_pow(cast(x, "float64"), cast(y, "float64")), dtype)
    y = k.bind(y)
    zero, one = const(0, dtype), const(1, dtype)
    result: Expr = one
    square = x
    for bit in range(EXPONENT_BITS):
        has_bit = tirx.NE(tirx.op.bitwise_and(y, const(1 << bit, exponent_dtype)), const(0, exponent_dtype))
        result = k.bind(tirx.Select(has_bit, result * square, result))
        square = k.bind(square * square)
    if exponent_dtype.startswith("uint"):
        return result
    is_unit = tirx.EQ(x * x, one)
    return tirx.Select(tirx.And(y < const(0, exponent_dtype), tirx.Not(is_unit)), zero, result)


def _pow(k: KernelBuilder, x: Expr, y: Expr) -> Expr:
    """x**y of float64 values that came from float32: 11 good digits, and all the special cases of C."""
    size = k.bind(tirx.op.abs(x))
    value = k.bind(_exp2(k, k.bind(y * _log2(k, size))))
    whole = tirx.EQ(tirx.op.floor(y), y)
    half = k.bind(y * _d(0.5))
    odd = tirx.And(whole, tirx.NE(tirx.op.floor(half), half))
    minus = tirx.op.reinterpret("int64", x) < const(0, "int64")
    value = k.bind(tirx.Select(tirx.And(odd, minus), _d(0.0) - value, value))
    undefined = tirx.And(tirx.And(x < _d(0.0), x > _d(-math.inf)), tirx.Not(whole))
    value = k.bind(tirx.Select(undefined, _d(math.nan), value))
    is_one = tirx.Or(
        tirx.EQ(y, _d(0.0)),
        tirx.Or(tirx.EQ(x, _d(1.0)), tirx.And(tirx.EQ(x, _d(-1.0)), tirx.EQ(tirx.op.abs(y), _d(math.inf)))),
    )
    return tirx.Select(is_one, _d(1.0), value)


def _log2(k: KernelBuilder, x: Expr) -> Expr:
    """log2 of 0, a positive float64 in the range of float32, or infinity."""
    shifted = k.bind(tirx.op.reinterpret("int64", x) - const(_SQRT_HALF_BITS, "int64"))
    bits = tirx.op.bitwise_and(shifted, const(_MANTISSA, "int64")) + const(_SQRT_HALF_BITS, "int64")
    mantissa = k.bind(tirx.op.reinterpret("float64", bits))
    exponent = tirx.Cast("float64", tirx.op.shift_right(shifted, const(52, "int64")))
    s = k.bind((mantissa - _d(1.0)) / (mantissa + _d(1.0)))
    value = k.bind(exponent + s * polynomial(k.bind(s * s), _LOG2))
    value = tirx.Select(tirx.EQ(x, _d(0.0)), _d(-math.inf), value)
    return tirx.Select(x < _d(math.inf), value, x)


def _exp2(k: KernelBuilder, x: Expr) -> Expr:
    """2**x; from 1000 on, and down from -1000, far beyond the range of float32."""
    bounded = k.bind(clamp(x, -1000.0, 1000.0))
    n = k.bind(tirx.op.round(bounded))
    mantissa = polynomial(k.bind(bounded - n), _EXP2)
    exponent = tirx.op.shift_left(tirx.Cast("int64", n) + const(1023, "int64"), const(52, "int64"))
    return mantissa * tirx.op.reinterpret("float64", exponent)


def _d(value: float) -> Expr:
    return const(value, "float64")

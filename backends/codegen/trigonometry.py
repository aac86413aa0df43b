"""Trigonometric and hyperbolic functions and their inverses, without calls to libm for float32 and half precision."""

from __future__ import annotations

import math

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.mathematics import (
    Function,
    by_precision,
    clamp,
    exp,
    log,
    log1p,
    polynomial,
    with_sign_of,
)

# (sin(r) - r) / r**3 and (cos(r) - 1 + r**2 / 2) / r**4 by r**2 for |r| <= pi / 4.
_SIN = (-1.6666666640e-1, 8.3333291439e-3, -1.9839256628e-4, 2.7175644098e-6)
_COS = (4.1666666619e-2, -1.3888883438e-3, 2.4799436402e-5, -2.7203303265e-7)
# pi / 2 in two parts; multiples of the first are exact in float64 up to 2**20.
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079632673412561417, 6.07710050650619224932e-11

# (asin(x) - x) / x**3 by x**2 for |x| <= 1/2; (atan(x) - x) / x**3 for |x| <= 1; (sinh(x) - x) / x**3 for |x| <= 1.
_ASIN = (1.6666659872e-1, 7.5005109168e-2, 4.4515720514e-2, 3.1817609185e-2, 1.4402615435e-2, 3.7565187790e-2)
_ATAN = (
    -3.3333327433e-1, 1.9999692611e-1, -1.4280130740e-1, 1.1060244548e-1, -8.8188483189e-2,
    6.7595721490e-2, -4.4946446082e-2, 2.2760341139e-2, -7.4226377962e-3, 1.1348783475e-3,
)  # fmt: skip
_SINH = (1.6666666489e-1, 8.3333505981e-3, 1.9836066246e-4, 2.8174396515e-6)

_LARGE = 1e15
"""Beyond it, 1 is lost against a square in float32."""


def _reduced(k: KernelBuilder, x: Expr) -> tuple[Expr, Expr, Expr]:
    """(sin(r), cos(r), q) with x = r + q * pi / 2 and |r| <= pi / 4; the reduction runs in float64."""
    wide = k.bind(tirx.Cast("float64", x))
    n = k.bind(tirx.op.round(wide * const(2 / math.pi, "float64")))
    rest = wide - n * const(_HALF_PI_HIGH, "float64") - n * const(_HALF_PI_LOW, "float64")
    r = k.bind(clamp(tirx.Cast("float32", rest), -0.8, 0.8))
    four = const(4.0, "float64")
    quadrant = k.bind(tirx.Cast("int32", n - four * tirx.op.floor(n / four)))
    square = k.bind(r * r)
    sine = k.bind(r + r * square * polynomial(square, _SIN))
    cosine = k.bind(_f(1.0) + square * (square * polynomial(square, _COS) - _f(0.5)))
    return sine, cosine, quadrant


def _is_odd(quadrant: Expr) -> Expr:
    return tirx.NE(quadrant & 1, 0)


def _wave(k: KernelBuilder, x: Expr, shift: int) -> Expr:
    sine, cosine, quadrant = _reduced(k, x)
    quadrant = k.bind(quadrant + shift)
    value = k.bind(tirx.Select(_is_odd(quadrant), cosine, sine))
    return tirx.Select(tirx.NE(quadrant & 2, 0), _f(0.0) - value, value)


def _sin(k: KernelBuilder, x: Expr) -> Expr:
    return _wave(k, x, 0)


def _cos(k: KernelBuilder, x: Expr) -> Expr:
    return _wave(k, x, 1)


def _tan(k: KernelBuilder, x: Expr) -> Expr:
    sine, cosine, quadrant = _reduced(k, x)
    odd = _is_odd(quadrant)
    return tirx.Select(odd, _f(0.0) - cosine, sine) / tirx.Select(odd, sine, cosine)


def _asin_parts(k: KernelBuilder, x: Expr) -> tuple[Expr, Expr]:
    """Whether |x| > 1/2, and asin of sqrt((1 - |x|) / 2) there, of |x| elsewhere."""
    size = k.bind(tirx.op.abs(x))
    large = size > _f(0.5)
    square = k.bind(tirx.Select(large, (_f(1.0) - size) * _f(0.5), size * size))
    root = k.bind(tirx.Select(large, tirx.op.sqrt(square), size))
    return large, k.bind(root + root * square * polynomial(square, _ASIN))


def _asin(k: KernelBuilder, x: Expr) -> Expr:
    large, part = _asin_parts(k, x)
    return with_sign_of(x, k.bind(tirx.Select(large, _f(math.pi / 2) - part - part, part)))


def _acos(k: KernelBuilder, x: Expr) -> Expr:
    large, part = _asin_parts(k, x)
    double = k.bind(part + part)
    ends = tirx.Select(x < _f(0.0), _f(math.pi) - double, double)
    return tirx.Select(large, ends, _f(math.pi / 2) - with_sign_of(x, part))


def _atan(k: KernelBuilder, x: Expr) -> Expr:
    size = k.bind(tirx.op.abs(x))
    large = size > _f(1.0)
    t = k.bind(tirx.Select(large, _f(1.0) / size, size))
    square = k.bind(t * t)
    part = k.bind(t + t * square * polynomial(square, _ATAN))
    return with_sign_of(x, k.bind(tirx.Select(large, _f(math.pi / 2) - part, part)))


def _half_exp(k: KernelBuilder, size: Expr) -> Expr:
    """e**size / 2, as the product of two roots so that it overflows no earlier than the result."""
    root = k.bind(exp(k, size * _f(0.5)))
    return k.bind(root * _f(0.5) * root)


def _sinh(k: KernelBuilder, x: Expr) -> Expr:
    size = k.bind(tirx.op.abs(x))
    square = k.bind(x * x)
    small = x + x * square * polynomial(square, _SINH)
    half = _half_exp(k, size)
    large = k.bind(half - _f(0.25) / half)
    return tirx.Select(size < _f(1.0), small, with_sign_of(x, large))


def _cosh(k: KernelBuilder, x: Expr) -> Expr:
    half = _half_exp(k, k.bind(tirx.op.abs(x)))
    return half + _f(0.25) / half


def _asinh(k: KernelBuilder, x: Expr) -> Expr:
    size = k.bind(tirx.op.abs(x))
    square = k.bind(size * size)
    near = log1p(k, size + square / (_f(1.0) + tirx.op.sqrt(_f(1.0) + square)))
    return with_sign_of(x, k.bind(tirx.Select(size < _f(_LARGE), near, log(k, size) + _f(math.log(2)))))


def _acosh(k: KernelBuilder, x: Expr) -> Expr:
    above = k.bind(x - _f(1.0))
    near = log1p(k, above + tirx.op.sqrt(above + above + above * above))
    return tirx.Select(x > _f(_LARGE), log(k, x) + _f(math.log(2)), near)


def _atanh(k: KernelBuilder, x: Expr) -> Expr:
    size = k.bind(tirx.op.abs(x))
    return with_sign_of(x, k.bind(_f(0.5) * log1p(k, (size + size) / (_f(1.0) - size))))


def _f(value: float) -> Expr:
    return const(value, "float32")


FUNCTIONS: dict[str, Function] = {
    "Acos": by_precision(_acos, tirx.op.acos),
    "Acosh": by_precision(_acosh, tirx.op.acosh),
    "Asin": by_precision(_asin, tirx.op.asin),
    "Asinh": by_precision(_asinh, tirx.op.asinh),
    "Atan": by_precision(_atan, tirx.op.atan),
    "Atanh": by_precision(_atanh, tirx.op.atanh),
    "Cos": by_precision(_cos, tirx.op.cos),
    "Cosh": by_precision(_cosh, tirx.op.cosh),
    "Sin": by_precision(_sin, tirx.op.sin),
    "Sinh": by_precision(_sinh, tirx.op.sinh),
    "Tan": by_precision(_tan, tirx.op.tan),
}
"""By the name of the ONNX operator."""

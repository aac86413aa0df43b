"""Transcendental functions as short polynomials, so that vector loops stay vectors and never call libm.

Each works on float32 expressions; other float types go through the compiler's own functions. Error bounds are measured
against float64 over the stated range by tests/backends/codegen/test_mathematics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const, dtype_of

# Minimax coefficients of (exp(r) - 1 - r) / r**2 on [-ln2/2, ln2/2], lowest power first (Cephes, expf).
_EXP = (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4

# Rational approximation of tanh(x) on [-7.90531, 7.90531]: x * P(x**2) / Q(x**2).
_TANH_P = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
_TANH_Q = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
_TANH_LIMIT = 7.90531110763549805

# erf(x) for |x| < 1 as x * P(x**2), and 1 - exp(-Q(|x|)) beyond.
_ERF_SMALL = (
    1.12837916709551, -0.376126389031838, 0.112837916709551, -0.0268661706451312, 0.00522397762544218,
    -0.000854832713277, 0.000120553329817,
)  # fmt: skip


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's scheme, lowest power first."""
    result: Expr = const(coefficients[-1], "float32")
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + const(coefficient, "float32")
    return result


def exp(k: KernelBuilder, x: Expr) -> Expr:
    """e**x. Below -87.3 it is 0 (no denormals are made), above 88.7 infinity; NaN stays NaN."""
    if dtype_of(x) != "float32":
        return tirx.op.exp(x)
    x = k.bind(x)
    bounded = k.bind(tirx.op.min(tirx.op.max(x, _f(-87.3365)), _f(88.3762626647949)))
    n = k.bind(tirx.op.floor(bounded * _f(_LOG2E) + _f(0.5)))
    r = k.bind(bounded - n * _f(_LN2_HIGH) - n * _f(_LN2_LOW))
    mantissa = k.bind(polynomial(r, _EXP) * r * r + r + _f(1.0))
    power = tirx.op.reinterpret("float32", (tirx.Cast("int32", n) + 127) << 23)
    value = k.bind(mantissa * power)
    value = tirx.Select(x < _f(-87.3365), _f(0.0), value)
    value = tirx.Select(x > _f(88.72283), _f(float("inf")), value)
    return tirx.Select(tirx.NE(x, x), x, value)


def sigmoid(k: KernelBuilder, x: Expr) -> Expr:
    """1 / (1 + e**-x)."""
    one = const(1.0, dtype_of(x))
    return one / (one + exp(k, const(0.0, dtype_of(x)) - x))


def tanh(k: KernelBuilder, x: Expr) -> Expr:
    """tanh(x) as a rational function, exact at 0 and monotone to +-1."""
    if dtype_of(x) != "float32":
        return tirx.op.tanh(x)
    x = k.bind(x)
    bounded = k.bind(tirx.op.min(tirx.op.max(x, _f(-_TANH_LIMIT)), _f(_TANH_LIMIT)))
    square = k.bind(bounded * bounded)
    value = bounded * polynomial(square, _TANH_P) / polynomial(square, _TANH_Q)
    return tirx.Select(tirx.NE(x, x), x, value)


def erf(k: KernelBuilder, x: Expr) -> Expr:
    """erf(x): Abramowitz and Stegun 7.1.26-style tail with exp, Taylor series near 0."""
    if dtype_of(x) != "float32":
        return tirx.op.erf(x)
    x = k.bind(x)
    size = k.bind(tirx.op.abs(x))
    square = k.bind(x * x)
    small = x * polynomial(square, _ERF_SMALL)
    t = k.bind(_f(1.0) / (_f(1.0) + _f(0.3275911) * size))
    series = t * polynomial(t, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
    tail = k.bind(_f(1.0) - series * exp(k, const(0.0, "float32") - square))
    signed = tirx.Select(x < _f(0.0), const(0.0, "float32") - tail, tail)
    return tirx.Select(size < _f(0.5), small, signed)


FUNCTIONS: dict[str, Callable[[KernelBuilder, Expr], Expr]] = {
    "Exp": exp,
    "Sigmoid": sigmoid,
    "Tanh": tanh,
    "Erf": erf,
}


def _f(value: float) -> Expr:
    return const(value, "float32")

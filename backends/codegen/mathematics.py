"""Exponentials, logarithms and error function as short polynomials, so that vector loops stay vectors and never call libm.

Polynomials are for float32; half precision is computed in float32 and rounded once, float64 calls the C library. The
coefficients are minimax fits; tests/backends/codegen/test_mathematics.py measures the errors against float64.
In a minimum or maximum the bound comes first, because then NaN in the second operand passes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const, dtype_of

Function = Callable[[KernelBuilder, Expr], Expr]

HALF_PRECISION = ("float16", "bfloat16")

# (e**r - 1 - r) / r**2 for |r| <= ln2 / 2.
_EXP = (5.0000000828e-1, 1.6666666868e-1, 4.1666253755e-2, 8.3332626427e-3, 1.3947224974e-3, 1.9919377622e-4)
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4

# (log(1 + f) - f + f**2 / 2) / f**3 for sqrt(0.5) <= 1 + f < sqrt(2).
_LOG = (
    3.3333312603e-1, -2.5000009604e-1, 2.0002118732e-1, -1.6667995667e-1, 1.4219550906e-1,
    -1.2405591425e-1, 1.1888174619e-1, -1.1675641269e-1, 6.7466012413e-2,
)  # fmt: skip
_SQRT_HALF_BITS = 0x3F3504F3
_SMALLEST_NORMAL = 2.0**-126

# (tanh(x) - x) / x**3 by x**2 for |x| <= 0.625.
_TANH = (
    -3.3333330907e-1,
    1.3333209764e-1,
    -5.3947204271e-2,
    2.1702967114e-2,
    -8.1826738786e-3,
    2.1475368789e-3,
)
_TANH_SMALL = 0.625

# erf(x) / x by x**2 for |x| <= 0.9, and log(1 - erf(x)) / x for 0.9 < x <= 4.
_ERF = (
    1.1283791668, -3.7612634980e-1, 1.1283715033e-1, -2.6860508446e-2,
    5.2038591201e-3, -8.1756388556e-4, 8.5131022721e-5,
)  # fmt: skip
_ERFC = (
    -1.1286089066, -6.3531602839e-1, -1.0595812959e-1, 2.3516709261e-2,
    -3.5240809644e-3, 2.9313610056e-4, -8.2150728351e-6,
)  # fmt: skip
_ERF_SMALL, _ERF_LIMIT = 0.9, 4.0


# (sigmoid(x) - 0.5) / x by x**2 for |x| <= 18.
_SIGMOID_NUMERATOR = (
    2.48287947061529e-01, 8.51377133304701e-03, 6.08574864600143e-05, 1.15627324459942e-07, 4.37031012579801e-11,
)  # fmt: skip
_SIGMOID_DENOMINATOR = (
    9.93151921023180e-01, 1.16817656904453e-01, 1.70198817374094e-03, 6.29106785017040e-06, 5.76102136993427e-09,
    6.10247389755681e-13,
)  # fmt: skip
_SIGMOID_LIMIT = 18.0

_BITS = {"float16": "int16", "float32": "int32", "float64": "int64"}
_OTHER_SIGN = {
    f"{sign}int{bits}": f"{other}int{bits}"
    for bits in (8, 16, 32, 64)
    for sign, other in (("", "u"), ("u", ""))
}
_INFINITY_BITS = {"float32": 0x7F800000, "float64": 0x7FF0000000000000}


def opaque(x: Expr, through: str = "int") -> Expr:
    """`x` itself, which TIR cannot see through: it would cancel `x - x`, `x * 0`, `x != x` and `(x + 1) - 1`.

    LLVM removes the conversion to bits and back. Literals stay as they are. What went `through` "uint" TIR takes for
    another value than what went through "int".
    """
    dtype = dtype_of(x)
    if isinstance(x, tirx.FloatImm | tirx.IntImm):
        return x
    if dtype in _OTHER_SIGN:
        return tirx.op.reinterpret(dtype, tirx.op.reinterpret(_OTHER_SIGN[dtype], x))
    if dtype not in _BITS:
        return x
    return tirx.op.reinterpret(dtype, tirx.op.reinterpret(_BITS[dtype].replace("int", through), x))


def is_nan(x: Expr) -> Expr:
    """Whether a float32 or float64 is NaN, from its bits: TIR's `!=` is false for NaN."""
    return _magnitude_bits(x) > const(_INFINITY_BITS[dtype_of(x)], _BITS[dtype_of(x)])


def is_finite(x: Expr) -> Expr:
    """Whether a float32 or float64 is neither infinite nor NaN."""
    return _magnitude_bits(x) < const(_INFINITY_BITS[dtype_of(x)], _BITS[dtype_of(x)])


def is_nonzero(x: Expr) -> Expr:
    """Whether a float32 or float64 is anything but 0 or -0; NaN is."""
    return tirx.NE(_magnitude_bits(x), const(0, _BITS[dtype_of(x)]))


def _magnitude_bits(x: Expr) -> Expr:
    dtype = _BITS[dtype_of(x)]
    return tirx.op.bitwise_and(tirx.op.reinterpret(dtype, x), const(np.iinfo(dtype).max, dtype))


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's scheme in the type of `x`, lowest power first."""
    dtype = dtype_of(x)
    result: Expr = const(coefficients[-1], dtype)
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + const(coefficient, dtype)
    return result


def by_precision(single: Function, double: Callable[[Expr], Expr]) -> Function:
    """`single` for float32 and, rounded once, for the half precisions; `double` for float64."""

    @wraps(single)
    def function(k: KernelBuilder, x: Expr) -> Expr:
        dtype = dtype_of(x)
        if dtype == "float64":
            return double(k.bind(x))
        return cast(single(k, k.bind(cast(x, "float32"))), dtype)

    return function


def clamp(x: Expr, low: float, high: float) -> Expr:
    """`x` within bounds; NaN stays NaN."""
    dtype = dtype_of(x)
    return tirx.op.min(const(high, dtype), tirx.op.max(const(low, dtype), x))


def with_sign_of(x: Expr, magnitude: Expr) -> Expr:
    """`magnitude`, negated where `x` is negative."""
    return tirx.Select(x < const(0, dtype_of(x)), const(0, dtype_of(magnitude)) - magnitude, magnitude)


def _exp(k: KernelBuilder, x: Expr) -> Expr:
    """e**x; results below the normal range are rounded to denormals, above it to infinity."""
    mantissa, exponent = _exp_parts(k, clamp(x, -104.0, 89.0))
    half = k.bind(exponent >> 1)
    return mantissa * _power_of_two(half) * _power_of_two(exponent - half)


def exp_bounded(k: KernelBuilder, x: Expr) -> Expr:
    """e**x of a float32 known to lie in [-87, 88]."""
    mantissa, exponent = _exp_parts(k, x)
    return mantissa * _power_of_two(exponent)


def _exp_parts(k: KernelBuilder, x: Expr) -> tuple[Expr, Expr]:
    """A mantissa near 1 and an integer such that e**x is mantissa * 2**integer."""
    x = k.bind(x)
    n = k.bind(tirx.op.round(x * _f(_LOG2E)))
    r = k.bind(x - n * _f(_LN2_HIGH) - n * _f(_LN2_LOW))
    mantissa = polynomial(r, _EXP) * r * r + r + _f(1.0)
    return k.bind(mantissa), k.bind(tirx.Cast("int32", n))


def _power_of_two(exponent: Expr) -> Expr:
    return tirx.op.reinterpret("float32", (exponent + 127) << 23)


def _sigmoid(k: KernelBuilder, x: Expr) -> Expr:
    """The rational function of ONNX Runtime and Eigen, so that small probabilities agree: 2e-7 absolutely."""
    bounded = k.bind(clamp(x, -_SIGMOID_LIMIT, _SIGMOID_LIMIT))
    square = k.bind(bounded * bounded)
    odd = bounded * polynomial(square, _SIGMOID_NUMERATOR)
    return clamp(odd / polynomial(square, _SIGMOID_DENOMINATOR) + _f(0.5), 0.0, 1.0)


def _log_positive(k: KernelBuilder, x: Expr, scale: float | Expr = 0.0) -> Expr:
    """log(x) of a positive, normal, finite float32, plus `scale` times log(2)."""
    shifted = k.bind(tirx.op.reinterpret("int32", x) - _SQRT_HALF_BITS)
    mantissa = tirx.op.reinterpret("float32", (shifted & 0x7FFFFF) + _SQRT_HALF_BITS)
    exponent = k.bind(tirx.Cast("float32", shifted >> 23) + scale)
    f = k.bind(mantissa - _f(1.0))
    square = k.bind(f * f)
    small = square * (f * polynomial(f, _LOG) - _f(0.5)) + exponent * _f(_LN2_LOW)
    return k.bind(f + small + exponent * _f(_LN2_HIGH))


def _log(k: KernelBuilder, x: Expr) -> Expr:
    """log(x), denormals included; -infinity at 0, NaN below."""
    tiny = x < _f(_SMALLEST_NORMAL)
    normal = k.bind(tirx.Select(tiny, x * _f(2.0**23), x))
    value = _log_positive(k, normal, tirx.Select(tiny, _f(-23.0), _f(0.0)))
    special = tirx.Select(tirx.EQ(x, _f(0.0)), _f(-math.inf), _f(math.nan))
    return tirx.Select(x > _f(0.0), tirx.Select(tirx.EQ(x, _f(math.inf)), x, value), special)


def _log1p(k: KernelBuilder, x: Expr) -> Expr:
    """log(1 + x), where the rounding error of 1 + x is made good to first order."""
    total = k.bind(_f(1.0) + x)
    correction = _lost(total, x) / total
    usable = tirx.And(total > _f(0.0), total < _f(math.inf))
    return k.bind(_log(k, total)) + tirx.Select(usable, correction, _f(0.0))


def _softplus(k: KernelBuilder, x: Expr) -> Expr:
    """log(1 + e**x) without overflow: max(x, 0) + log1p(e**-|x|)."""
    small = k.bind(exp_bounded(k, clamp(_f(0.0) - tirx.op.abs(x), -87.0, 0.0)))
    total = k.bind(_f(1.0) + small)
    return tirx.op.max(_f(0.0), x) + (_log_positive(k, total) + _lost(total, small) / total)


def _lost(total: Expr, x: Expr) -> Expr:
    """What rounding dropped from `total` = 1 + x."""
    return x - (opaque(total) - _f(1.0))


def _tanh(k: KernelBuilder, x: Expr) -> Expr:
    """tanh(x): an odd polynomial near 0, 1 - 2 / (e**2|x| + 1) beyond."""
    size = k.bind(tirx.op.abs(x))
    square = k.bind(x * x)
    small = x + x * square * polynomial(square, _TANH)
    grown = exp_bounded(k, clamp(size + size, 0.0, 40.0))
    large = k.bind(_f(1.0) - _f(2.0) / (grown + _f(1.0)))
    return tirx.Select(size < _f(_TANH_SMALL), small, with_sign_of(x, large))


def _erf(k: KernelBuilder, x: Expr) -> Expr:
    """erf(x): an odd polynomial near 0, 1 - e**polynomial beyond; from 4 on it is 1."""
    size = k.bind(tirx.op.abs(x))
    small = x * polynomial(k.bind(x * x), _ERF)
    bounded = k.bind(clamp(size, 0.0, _ERF_LIMIT))
    large = k.bind(_f(1.0) - exp_bounded(k, bounded * polynomial(bounded, _ERFC)))
    return tirx.Select(size < _f(_ERF_SMALL), small, with_sign_of(x, large))


def _sigmoid_double(x: Expr) -> Expr:
    one = const(1.0, "float64")
    return one / (one + tirx.op.exp(const(0.0, "float64") - x))


def _softplus_double(x: Expr) -> Expr:
    zero = const(0.0, "float64")
    return tirx.op.max(zero, x) + tirx.op.log1p(tirx.op.exp(zero - tirx.op.abs(x)))


def _f(value: float) -> Expr:
    return const(value, "float32")


exp = by_precision(_exp, tirx.op.exp)
sigmoid = by_precision(_sigmoid, _sigmoid_double)
log = by_precision(_log, tirx.op.log)
log1p = by_precision(_log1p, tirx.op.log1p)
softplus = by_precision(_softplus, _softplus_double)
tanh = by_precision(_tanh, tirx.op.tanh)
erf = by_precision(_erf, tirx.op.erf)


def coarse_exp(k: KernelBuilder, x: Expr) -> Expr:
    """e**x of a float32 from which halves are computed."""
    return exp(k, x)


FUNCTIONS: dict[str, Function] = {
    "Erf": erf,
    "Exp": exp,
    "Log": log,
    "Sigmoid": sigmoid,
    "Softplus": softplus,
    "Tanh": tanh,
}
"""By the name of the ONNX operator."""

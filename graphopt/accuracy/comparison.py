"""Comparison of two arrays: the tolerances per dtype, and how an error is measured against them."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from graphopt.arrays import Array

# Largest relative error per dtype of an output; dtypes that are not listed (integers, bool, strings) must be
# equal. Half-precision entries are a few units in the last place. float64 is no tighter: it may hold a
# float32 result.
TOLERANCES: dict[np.dtype[Any], float] = {
    np.dtype(np.float64): 1e-4,
    np.dtype(np.float32): 1e-4,
    np.dtype(np.float16): 4e-3,
    np.dtype(ml_dtypes.bfloat16): 3e-2,
}
# How many times the reference's difference from itself a result may differ from the reference.
SELF_DIFFERENCE_FACTOR = 3.0
# Quantisation steps that an integer kernel may differ from the reference on the same inputs: a tie rounded
# otherwise.
QUANTISATION_STEPS = 1.0
# The reason where there is nothing to compare.
MISSING = "missing"


@dataclass(frozen=True)
class Comparison:
    """One output against its reference.

    ``max_rel_err`` is ``max|a - b| / max|b|`` over finite elements, and infinity where shapes, dtypes or the
    positions of NaN and infinities differ; for exact dtypes it is the share of unequal elements. ``reason``
    names such a case. With ``in_steps`` all three numbers count quantisation steps.
    """

    name: str
    dtype: str
    max_abs_err: float
    max_rel_err: float
    tolerance: float
    reason: str = ""
    in_steps: bool = False

    @property
    def passed(self) -> bool:
        return self.max_rel_err <= self.tolerance


def describe(output: Comparison) -> str:
    """One output's difference in words."""
    measured = f"max_rel_err {output.max_rel_err:.3g} over the tolerance of {output.tolerance:.3g}"
    if output.in_steps:
        measured = f"{output.max_abs_err:g} quantisation steps"
    detail = output.reason or measured
    return f"output {output.name!r} ({output.dtype}): {detail}"


def compare_output(name: str, expected: Any, actual: Any, own: float = 0.0, least: float = 0.0) -> Comparison:
    """Compare one output: an array, or a sequence of arrays. Floats are allowed at least the tolerance ``least``."""
    if isinstance(expected, list):
        return _compare_sequences(name, expected, actual, own, least)
    b = np.asarray(expected)
    known = TOLERANCES.get(b.dtype)
    tolerance = 0.0 if known is None else max(known, SELF_DIFFERENCE_FACTOR * own, least)
    reason = _mismatch(b, actual)
    if reason:
        return Comparison(name, str(b.dtype), float("inf"), float("inf"), tolerance, reason)
    a = np.asarray(actual)
    measure = _float_errors if b.dtype in TOLERANCES else _exact_errors
    return Comparison(name, str(b.dtype), *measure(a, b), tolerance)


def compare_steps(name: str, expected: Array, actual: Any) -> Comparison:
    """Compare quantised integers: both errors count quantisation steps, and one step is allowed."""
    reason = _mismatch(expected, actual)
    if reason:
        return Comparison(
            name, str(expected.dtype), float("inf"), float("inf"), QUANTISATION_STEPS, reason, True
        )
    steps = _exact_errors(np.asarray(actual), expected)[0]
    return Comparison(name, str(expected.dtype), steps, steps, QUANTISATION_STEPS, in_steps=True)


def _compare_sequences(name: str, expected: list[Any], actual: Any, own: float, least: float) -> Comparison:
    if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
        reason = f"a sequence of {len(expected)} elements is missing"
        return Comparison(name, "sequence", float("inf"), float("inf"), 0.0, reason)
    pairs = zip(expected, actual, strict=True)
    items = [compare_output(f"{name}[{index}]", b, a, own, least) for index, (b, a) in enumerate(pairs)]
    return max(items, key=lambda item: item.max_rel_err, default=Comparison(name, "sequence", 0.0, 0.0, 0.0))


def _mismatch(expected: Array, actual: Any) -> str:
    """Why two arrays cannot be compared element by element, or an empty string."""
    if actual is None:
        return MISSING
    a = np.asarray(actual)
    if a.dtype != expected.dtype and not (a.dtype.kind in "OSU" and expected.dtype.kind in "OSU"):
        return f"dtype {a.dtype} instead of {expected.dtype}"
    if a.shape != expected.shape:
        return f"shape {list(a.shape)} instead of {list(expected.shape)}"
    if expected.dtype in TOLERANCES and not _same_non_finite(a, expected):
        return "NaN or infinity at different positions"
    return ""


def _same_non_finite(a: Array, b: Array) -> bool:
    finite = np.isfinite(b)
    return bool(
        np.array_equal(np.isfinite(a), finite)
        and np.array_equal(a[~finite].astype(np.float64), b[~finite].astype(np.float64), equal_nan=True)
    )


def _float_errors(a: Array, b: Array) -> tuple[float, float]:
    """Largest absolute and relative error over finite elements; a zero reference counts as 1."""
    finite = np.isfinite(b)
    if not finite.any():
        return 0.0, 0.0
    wide_a, wide_b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    error = float(np.abs(wide_a - wide_b).max())
    return error, error / (float(np.abs(wide_b).max()) or 1.0)


def _exact_errors(a: Array, b: Array) -> tuple[float, float]:
    """Largest absolute difference (1 for what is not a number) and the share of unequal elements."""
    unequal = a != b
    share = float(np.mean(unequal)) if unequal.size else 0.0
    if b.dtype.kind not in "iu" or not share:
        return float(share > 0), share
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()), share

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphopt.accuracy.comparison import compare_output, describe

INF, NAN = float("inf"), float("nan")


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_relative_error_is_over_the_largest_reference_value() -> None:
    result = compare_output("y", f32(10, 1), f32(10, 1.0005))
    assert result.max_abs_err == pytest.approx(5e-4, rel=1e-3)
    assert result.max_rel_err == pytest.approx(5e-5, rel=1e-3)
    assert result.passed


@pytest.mark.parametrize(("error", "passed"), [(0.9e-4, True), (1.1e-4, False)])
def test_float32_tolerance(error: float, passed: bool) -> None:
    assert compare_output("y", f32(1), f32(1 + error)).passed is passed


def test_the_reference_may_differ_from_itself() -> None:
    assert not compare_output("y", f32(1), f32(1.002), own=5e-4).passed
    assert compare_output("y", f32(1), f32(1.002), own=7e-4).passed


@pytest.mark.parametrize(("dtype", "steps", "passed"), [
    (np.float16, 3, True), (np.float16, 9, False),
    (ml_dtypes.bfloat16, 3, True), (ml_dtypes.bfloat16, 9, False),
])  # fmt: skip
def test_half_precision_allows_a_few_units_in_the_last_place(dtype: Any, steps: int, passed: bool) -> None:
    unit = float(ml_dtypes.finfo(dtype).eps)
    assert compare_output("y", np.array([1.0], dtype), np.array([1 + steps * unit], dtype)).passed is passed


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_and_bools_are_exact(dtype: Any) -> None:
    expected = np.array([0, 1, 1, 0], dtype)
    assert compare_output("y", expected, expected.copy()).passed
    result = compare_output("y", expected, np.array([0, 1, 0, 0], dtype), own=1.0)
    assert not result.passed
    assert (result.max_abs_err, result.max_rel_err) == (1, 0.25)


def test_unsigned_differences_do_not_wrap() -> None:
    assert compare_output("y", np.array([0], np.uint8), np.array([255], np.uint8)).max_abs_err == 255


@pytest.mark.parametrize("actual", [f32(1, NAN, INF, -INF)])
def test_equal_non_finite_positions_pass(actual: np.ndarray) -> None:
    assert compare_output("y", f32(1, NAN, INF, -INF), actual).max_rel_err == 0


@pytest.mark.parametrize(
    "actual", [f32(1, 0, INF), f32(NAN, NAN, INF), f32(1, NAN, -INF), f32(1, INF, NAN), f32(1, NAN, 3e38)]
)
def test_other_non_finite_positions_fail(actual: np.ndarray) -> None:
    result = compare_output("y", f32(1, NAN, INF), actual)
    assert not result.passed
    assert "NaN or infinity" in describe(result)


def test_an_all_zero_reference_counts_absolute_errors() -> None:
    assert compare_output("y", f32(0, 0), f32(0, 5e-5)).max_rel_err == pytest.approx(5e-5)


def test_empty_arrays_are_equal() -> None:
    assert compare_output("y", f32(), f32()).passed
    assert compare_output("y", np.zeros(0, np.int64), np.zeros(0, np.int64)).passed


@pytest.mark.parametrize(
    ("actual", "reason"),
    [
        (None, "missing"),
        (np.zeros(2), "dtype float64 instead of float32"),
        (np.zeros((1, 2), np.float32), "shape [1, 2] instead of [2]"),
    ],
)
def test_what_cannot_be_compared_fails_with_a_reason(actual: Any, reason: str) -> None:
    result = compare_output("y", f32(0, 0), actual)
    assert not result.passed
    assert result.reason == reason


def test_strings() -> None:
    assert compare_output("y", np.array(["a", "b"]), np.array(["a", "b"], object)).passed
    assert not compare_output("y", np.array(["a", "b"]), np.array(["a", "c"], object)).passed


def test_sequences() -> None:
    expected = [f32(1), f32(2, 3)]
    assert compare_output("y", expected, [f32(1), f32(2, 3)]).passed
    worst = compare_output("y", expected, [f32(1), f32(2, 4)])
    assert (worst.name, worst.passed) == ("y[1]", False)
    assert not compare_output("y", expected, [f32(1)]).passed

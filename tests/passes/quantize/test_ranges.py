"""The range that each method makes of what was seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.passes.quantize.observers import Seen
from graphopt.passes.quantize.ranges import LEVELS, METHODS, parameters

RNG = np.random.default_rng(6)


def seen(*batches: np.ndarray) -> Seen:
    found = Seen()
    for batch in batches:
        found.add(batch)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_normal_value_is_covered(method: str) -> None:
    low, high = METHODS[method](seen(*RNG.standard_normal((8, 5000)).astype(np.float32)))
    assert -5 < low < -2
    assert 2 < high < 5


def test_outliers_are_clipped_by_all_but_the_extremes() -> None:
    values = RNG.standard_normal(200_000).astype(np.float32)
    values[0] = 40
    found = seen(values)
    assert METHODS["min-max"](found)[1] == 40
    assert all(METHODS[method](found)[1] < 40 for method in ("mse", "percentile", "entropy"))


def test_rectified_zeros_do_not_narrow_the_range() -> None:
    values = np.maximum(RNG.standard_normal(100_000), 0).astype(np.float32)
    for method in METHODS:
        assert METHODS[method](seen(values))[1] > 2.5, method


def test_the_average_moves_slowly() -> None:
    first, second = np.array([0.0, 1.0]), np.array([-1.0, 11.0])
    assert METHODS["moving-average"](seen(first, second)) == pytest.approx((-0.1, 2.0))


@given(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_parameters_cover_the_range_and_zero(first: float, second: float) -> None:
    found = parameters((min(first, second), max(first, second)))
    assert found.scale > 0
    assert 0 <= found.zero < LEVELS
    low, high = (float(found.scale) * (level - int(found.zero)) for level in (0, LEVELS - 1))
    assert low <= min(first, second, 0) + float(found.scale)
    assert high >= max(first, second, 0) - float(found.scale)


def test_a_value_that_is_always_zero_has_a_scale() -> None:
    assert parameters(METHODS["mse"](seen(np.zeros(4, np.float32)))).scale == 1

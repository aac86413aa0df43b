"""What is kept of what was seen, and the range that each method makes of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphopt.passes.quantize.ranges import HALF, LEVELS, METHODS, Seen, parameters

RNG = np.random.default_rng(6)


def seen(*batches: np.ndarray) -> Seen:
    found = Seen()
    for batch in batches:
        found.add(batch)
    return found


@given(st.lists(arrays(np.float32, st.integers(0, 20), elements=st.floats(-1e6, 1e6, width=32)), max_size=5))
def test_nothing_is_lost_when_the_histogram_widens(batches: list[np.ndarray]) -> None:
    found = seen(*batches)
    together = np.concatenate([np.zeros(0, np.float32), *batches])
    assert found.counts.sum() == together.size
    if together.size:
        assert (found.low, found.high) == (together.min(), together.max())
        assert found.radius >= np.abs(together).max()
        assert (
            found.counts[HALF:].sum() >= (together > 0).sum() - (np.abs(together) < found.radius / HALF).sum()
        )


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

"""The matrices give exact correlations, and the measured error tells accurate variants from useless ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.backends.kernels.winograd_transforms import (
    POINTS,
    TAPS,
    relative_error,
    transform_weights,
    transforms,
)


@pytest.mark.parametrize("tile", POINTS)
@given(st.integers(0, 2**32 - 1))
def test_products_of_transforms_are_a_correlation(tile: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = transforms(tile)
    data, filter_ = rng.standard_normal(known.points), rng.standard_normal(TAPS)
    result = known.output @ ((known.weights @ filter_) * (known.input @ data))
    np.testing.assert_allclose(result, np.correlate(data, filter_, "valid"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile", POINTS)
def test_weights_are_transformed_along_both_axes(tile: int) -> None:
    weights = np.random.default_rng(0).standard_normal((5, 4, TAPS, TAPS)).astype(np.float32)
    matrix = transforms(tile).weights
    expected = matrix @ weights[3, 2].astype(np.float64) @ matrix.T
    np.testing.assert_allclose(transform_weights(weights, tile)[:, :, 3, 2], expected, rtol=1e-6)


@pytest.mark.parametrize(("tile", "limit"), [(2, 1e-6), (4, 4e-6)])
def test_error_of_ordinary_weights_is_small(tile: int, limit: float) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 256, TAPS, TAPS)).astype(np.float32)
    assert 0 < relative_error(weights, tile) < limit


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_error_of_weights_that_overflow_is_no_number_below_a_limit(value: float) -> None:
    weights = np.full((16, 16, TAPS, TAPS), value, np.float32)
    assert not relative_error(weights, 4) <= 1.0

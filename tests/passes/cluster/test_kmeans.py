"""Clusters of numbers, next to all ways to cut them."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from graphopt.passes.cluster.histogram import BINS, coarser, histogram
from graphopt.passes.cluster.kmeans import EXACT, centres, fewest_centres


def error(values: np.ndarray, weights: np.ndarray, found: np.ndarray) -> float:
    nearest = np.searchsorted((found[1:] + found[:-1]) / 2, values.astype(np.float64))
    return float((weights * (values - found[nearest]) ** 2).sum())


def least_error(values: np.ndarray, weights: np.ndarray, count: int) -> float:
    """Over all ways to cut sorted values into parts."""
    size, found = len(values), np.inf
    for cuts in combinations(range(1, size), count - 1):
        parts = [slice(a, b) for a, b in zip((0, *cuts), (*cuts, size), strict=True)]
        means = np.array([np.average(values[part], weights=weights[part]) for part in parts])
        found = min(found, error(values, weights, means))
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_the_least(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.standard_normal(11)).astype(np.float32)
    weights = rng.uniform(0.1, 3, 11).astype(np.float32)
    found = centres(histogram(values, weights), count)
    assert len(found) == count
    assert error(values, weights, found) == pytest.approx(least_error(values, weights, count), rel=1e-5)


def test_values_far_from_zero() -> None:
    values = np.float32([1000.0, 1000.25, 1001.0, 1001.25])
    np.testing.assert_array_equal(centres(histogram(values), 2), [1000.125, 1001.125])


@pytest.mark.parametrize("count", [2, 16, 256])
def test_many_values_are_nearly_optimal(count: int) -> None:
    """The optimum of all sites is that of `EXACT` joined ones, improved, but for some thousandths."""
    values = np.random.default_rng(0).standard_t(4, 20_000).astype(np.float32)
    sites = histogram(values)
    assert len(sites) > EXACT
    ones = np.ones_like(values)
    found = error(values, ones, centres(sites, count))
    many = coarser(sites, 8 * EXACT)
    found_finer = min(error(values, ones, centres(many, count)), found)
    assert found <= 1.003 * found_finer


def test_no_more_clusters_than_values() -> None:
    values = np.repeat(np.float32([1, 2, 4]), 1000)
    np.testing.assert_array_equal(centres(histogram(values), 32), [1, 2, 4])


def test_a_single_value_among_many() -> None:
    values = np.full(BINS + 1, 0.5, np.float32)
    for weights in (None, values):
        np.testing.assert_array_equal(centres(histogram(values, weights), 4), [0.5])


def test_as_few_clusters_as_the_error_allows() -> None:
    values = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    sites, ones = histogram(values), np.ones(5000, np.float32)
    found = fewest_centres(sites, 0.01, 256)
    fewer = centres(sites, len(found) - 1)
    assert error(values, ones, found) <= 0.01 * 5000 * 1.001
    assert error(values, ones, fewer) > 0.01 * 5000
    assert len(fewest_centres(sites, 0.0, 20)) == 20


def test_bins_keep_counts_weights_and_means() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal(3 * BINS).astype(np.float32)
    weights = rng.uniform(0.5, 2, len(values)).astype(np.float32)
    sites = histogram(values, weights)
    assert len(sites) <= BINS
    assert sites.counts.sum() == len(values)
    assert sites.weights.sum() == pytest.approx(weights.sum(dtype=np.float64))
    moment = (values.astype(np.float64) * weights).sum()
    assert (sites.weights * sites.positions).sum() == pytest.approx(moment)
    joined = coarser(sites, 100)
    assert len(joined) <= 100
    assert (joined.weights * joined.positions).sum() == pytest.approx(moment)
    assert (np.diff(joined.positions) > 0).all()


def test_memory_is_bounded() -> None:
    """What is needed besides the values does not grow with them."""
    values = np.random.default_rng(3).standard_normal(8_000_000).astype(np.float32)
    tracemalloc.start()
    centres(histogram(values), 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * values.nbytes

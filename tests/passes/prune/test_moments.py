"""What is kept of channels while data passes."""

import numpy as np
import pytest

from graphopt.passes.prune.moments import BINS, Histograms, Moments
from tests.passes.prune.checking import random

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [1, -1])
def test_covariance(axis: int) -> None:
    batches = [random(3, 5, 4, 5, seed=seed) + 2 for seed in range(3)]
    seen = Moments(axis)
    for each in batches:
        seen.add(each)
    rows = np.moveaxis(np.concatenate(batches), axis, -1).reshape(-1, 5)
    np.testing.assert_allclose(seen.covariance, np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-4)


def test_moments_that_are_joined() -> None:
    batches = [random(3, 5, seed=seed) for seed in range(3)]
    whole, joined = Moments(1), Moments(1)
    whole.add(np.concatenate(batches))
    for each in batches:
        part = Moments(1)
        part.add(each)
        joined.join(part)
    joined.join(Moments(1, np.zeros_like(whole.products)))
    np.testing.assert_allclose(joined.products.sum(axis=0), whole.products.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_histograms_that_are_joined() -> None:
    """Of different radii: those of powers of two that are in the same bins then."""
    batches = [random(50, 3, seed=seed) * np.float32(4.0**seed) for seed in (2, 0, 1)]
    joined, turned = Histograms(1), Histograms(1)
    for each in batches:
        joined.add(each)
    for each in batches[::-1]:
        turned.add(each)
    assert joined.radius == turned.radius >= max(np.abs(each).max() for each in batches)
    np.testing.assert_array_equal(joined.counts, turned.counts)
    assert joined.counts.sum(axis=1).tolist() == [150] * 3


def test_entropies_in_bits() -> None:
    rows = np.stack(
        [np.zeros(BINS), np.tile([-0.9, 0.9], BINS // 2), (np.arange(BINS) + 0.5) / BINS * 2 - 1], axis=1
    )
    seen = Histograms(1)
    seen.add(rows.astype(np.float32))
    assert seen.radius == 1
    np.testing.assert_allclose(seen.entropies, [0, 1, np.log2(BINS)])


def test_channels_of_zeros_and_no_rows() -> None:
    seen = Histograms(1)
    seen.add(np.zeros((0, 3), np.float32))
    seen.add(np.zeros((4, 3), np.float32))
    seen.add(random(4, 3))
    assert seen.counts.sum(axis=1).tolist() == [8] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16])
def test_numbers_whose_sums_do_not_fit_their_type(dtype: type) -> None:
    values = np.random.default_rng(0).integers(100, 120, (1000, 3)).astype(dtype)
    seen, bins = Moments(1), Histograms(1)
    for each in (seen, bins):
        each.add(values)
    np.testing.assert_allclose(seen.covariance, np.cov(values.T.astype(np.float64), bias=True), rtol=1e-9)
    assert bins.radius == 128
    assert bins.counts.sum(axis=1).tolist() == [1000] * 3


@pytest.mark.parametrize("batch", [1, 4])
def test_halves_have_samples_of_their_own(batch: int) -> None:
    rows = random(8, 3)
    seen = Moments(1)
    for start in range(0, 8, batch):
        seen.add(rows[start : start + batch])
    of_first = [0, 2, 4, 6] if batch == 1 else [0, 1, 4, 5]
    others = sorted(set(range(8)) - set(of_first))
    expected = {np.cov(rows[half].T, bias=True).tobytes() for half in (of_first, others)}
    assert len(expected) == 2
    for half, chosen in zip(
        sorted(seen.halves, key=str),
        sorted((np.cov(rows[h].T, bias=True) for h in (of_first, others)), key=str),
        strict=True,
    ):
        np.testing.assert_allclose(half, chosen, rtol=1e-4, atol=1e-5)


def test_where_one_half_saw_nothing_both_are_all() -> None:
    seen = Moments(1)
    seen.add(random(1, 3, 6))
    for half in seen.halves:
        np.testing.assert_array_equal(half, seen.covariance)

"""Channels go in the order in which they are missed least."""

import numpy as np
import pytest

from graphopt.passes.prune.elimination import DAMPING, Reader, eliminate


def data(channels: int = 5, results: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of channels that depend on each other, without mean, and weights."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((400, channels)) @ rng.standard_normal((channels, channels))
    return rows - rows.mean(axis=0), rng.standard_normal((results, channels))


def reader(covariance: np.ndarray, weights: np.ndarray, units: np.ndarray) -> Reader:
    """Of so much data that other data would show the same."""
    return Reader(covariance, (covariance, covariance), weights, units)


def lost(rows: np.ndarray, weights: np.ndarray, left: list[int]) -> tuple[float, float]:
    """Brute force: the share of results that the best weights of the channels that are left do not give, with and without the noise
    of its own that each channel has in the search, which damps the diagonal."""
    noise = np.sqrt(DAMPING * np.square(rows).mean() * len(rows))
    noisy = np.concatenate([rows, noise * np.eye(rows.shape[1])])
    found = np.zeros_like(weights)
    if left:
        found[:, left] = np.linalg.lstsq(noisy[:, left], noisy @ weights.T, rcond=None)[0].T
    whole = np.square(rows @ weights.T).sum()
    errors = [np.square(each @ (weights - found).T).sum() / whole for each in (noisy, rows)]
    return float(errors[0]), float(errors[1])


@pytest.mark.parametrize("seed", range(4))
def test_against_least_squares_of_every_step(seed: int) -> None:
    rows, weights = data(seed=seed)
    scores = eliminate(5, [reader(rows.T @ rows / len(rows), weights, np.arange(5))])
    left, so_far, highest = list(range(5)), 0.0, 0.0
    while left:
        losses = {each: lost(rows, weights, [other for other in left if other != each]) for each in left}
        least = min(losses, key=losses.__getitem__)
        highest = max(highest, losses[least][1] - so_far)
        assert scores[least] == pytest.approx(highest, rel=1e-6)
        left.remove(least)
        so_far = losses[least][1]


def test_of_two_equal_channels_one_costs_nothing() -> None:
    rows, weights = data()
    rows[:, 3] = rows[:, 1]
    scores = eliminate(5, [reader(rows.T @ rows / len(rows), weights, np.arange(5))])
    assert scores.min() == min(scores[1], scores[3]) < 1e-2 < max(scores[1], scores[3])


def test_channels_of_several_places_go_whole() -> None:
    rows, weights = data(6)
    rows[:, 4:] = 0.01 * rows[:, 4:]
    weights[:, 4:] *= 0.01
    scores = eliminate(3, [reader(rows.T @ rows / len(rows), weights, np.array([0, 1, 0, 1, 2, 2]))])
    assert scores.argmin() == 2
    assert np.isfinite(scores).all()


def test_places_of_other_groups_stand_in() -> None:
    """A copy that never goes makes a channel worth nothing."""
    rows, weights = data(4)
    rows[:, 3] = rows[:, 0]
    scores = eliminate(3, [reader(rows.T @ rows / len(rows), weights, np.array([0, 1, 2, -1]))])
    assert scores.argmin() == 0
    assert scores[0] < 1e-2


def test_costs_of_readers_add_up() -> None:
    rows, weights = data()
    one = reader(rows.T @ rows / len(rows), weights, np.arange(5))
    np.testing.assert_allclose(eliminate(5, [one, one]), 2 * eliminate(5, [one]))


def test_channels_that_nobody_reads() -> None:
    assert eliminate(3, []).tolist() == [0, 0, 0]
    nothing = reader(np.zeros((3, 3)), np.ones((2, 3)), np.arange(3))
    assert np.isfinite(eliminate(3, [nothing])).all()


def test_what_stands_in_is_judged_on_other_samples() -> None:
    """Of 30 independent channels seen 40 times each seems to be made of the others: in either half, none is missed there."""
    rng = np.random.default_rng(0)
    halves = [rows.T @ rows / len(rows) for rows in rng.standard_normal((2, 20, 30))]
    weights = np.eye(30)
    both = (halves[0] + halves[1]) / 2
    trusting = eliminate(30, [Reader(both, (both, both), weights, np.arange(30))])
    judged = eliminate(30, [Reader(both, (halves[0], halves[1]), weights, np.arange(30))])
    assert trusting.min() < 0.5 / 30 < 0.9 / 30 < judged.min()


@pytest.mark.parametrize("units", [np.arange(5), np.array([0, 1, 0, 1, 2])])
def test_losses_that_are_kept_up_to_date(units: np.ndarray) -> None:
    """The sum of scores, where none is held up by one before it, is all there is to lose when everything has gone."""
    rows, weights = data(seed=1)
    covariance = rows.T @ rows / len(rows)
    scores = eliminate(units.max() + 1, [reader(covariance, weights, units)])
    assert scores.sum() == pytest.approx(1, rel=1e-2)

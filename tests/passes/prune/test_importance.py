"""What channels are worth, against what it is by definition."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import Group, find_groups
from graphopt.passes.prune.importance import IMPORTANCE, OBSERVES, Evidence, point
from graphopt.passes.prune.moments import Histograms, Moments
from tests.passes.prune.checking import between, random

W, K, V = random(8, 3, 3, 3), random(8, 3, 1, 1), random(4, 8, 1, 1)


def group(body: str = "b = Relu(a)", **constants: np.ndarray) -> Group:
    (found,) = find_groups(between(body, **constants)).groups
    return found


def test_l1() -> None:
    np.testing.assert_allclose(
        IMPORTANCE["l1"](group(), Evidence()), np.abs(W).sum(axis=(1, 2, 3)), rtol=1e-6
    )


def test_l2_of_all_that_makes_and_reads() -> None:
    squares = np.square(W).sum(axis=(1, 2, 3)) + np.square(V).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(IMPORTANCE["l2"](group(), Evidence()), np.sqrt(squares), rtol=1e-6)


def test_several_makers_add_up() -> None:
    found = group("d = Conv(x, k) b = Add(a, d)", k=K)
    expected = np.abs(W).sum(axis=(1, 2, 3)) + np.abs(K).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(IMPORTANCE["l1"](found, Evidence()), expected, rtol=1e-6)


def test_channels_of_several_places() -> None:
    found = group("b = DepthToSpace <blocksize = 2> (a)", v=random(4, 2, 1, 1))
    expected = np.abs(W).sum(axis=(1, 2, 3)).reshape(4, 2).sum(axis=0)
    np.testing.assert_allclose(IMPORTANCE["l1"](found, Evidence()), expected, rtol=1e-6)


def test_median() -> None:
    rows = W.reshape(8, -1)
    expected = [sum(np.linalg.norm(row - other) for other in rows) for row in rows]
    np.testing.assert_allclose(IMPORTANCE["median"](group(), Evidence()), expected, rtol=1e-5)


def observed(found: Group, kind: type, array: np.ndarray) -> dict:
    seen = kind(1)
    seen.add(array)
    return {point(found.readers[0]): seen}


def test_variance() -> None:
    found, seen = group(), random(5, 8, 4, 4)
    scores = IMPORTANCE["variance"](found, Evidence(moments=observed(found, Moments, seen)))
    np.testing.assert_allclose(scores, seen.var(axis=(0, 2, 3)) * np.square(V).sum(axis=(0, 2, 3)), rtol=1e-4)


def test_entropy() -> None:
    found, seen = group(), random(5, 8, 4, 4)
    seen[:, 2] = 0.5
    scores = IMPORTANCE["entropy"](found, Evidence(histograms=observed(found, Histograms, seen)))
    assert scores[2] == 0
    assert (np.delete(scores, 2) > 1).all()


def test_of_two_equal_channels_one_is_worth_nothing() -> None:
    found, seen = group(), random(5, 8, 4, 4)
    seen[:, 6] = seen[:, 2]
    scores = IMPORTANCE["correlation"](found, Evidence(moments=observed(found, Moments, seen)))
    assert scores.argmin() in (2, 6)
    assert scores.min() < 0.1 * np.sort(scores)[1]


def test_taylor() -> None:
    """Two losses: the squares of the sums of weights times slopes, over all that goes with a channel."""
    found = group()
    slopes = {"w": random(2, *W.shape, seed=3), "v": random(2, *V.shape, seed=4)}
    made = np.square((slopes["w"] * W).sum(axis=(2, 3, 4))).mean(axis=0)
    read = np.square((slopes["v"] * V).sum(axis=(1, 3, 4))).mean(axis=0)
    np.testing.assert_allclose(IMPORTANCE["taylor"](found, Evidence(slopes=slopes)), made + read, rtol=1e-4)


def test_chance_depends_on_the_seed() -> None:
    first, same, other = (IMPORTANCE["random"](group(), Evidence(seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


@pytest.mark.parametrize("name", IMPORTANCE)
def test_every_importance_gives_a_number_for_every_channel(name: str) -> None:
    found = group()
    assert IMPORTANCE[name](found, Evidence()).shape == (8,)
    assert name not in OBSERVES or IMPORTANCE[name](found, Evidence()).sum() == 0


@pytest.mark.parametrize("name", ["l1", "l2", "median"])
def test_a_channel_elsewhere_is_not_counted(name: str) -> None:
    """Weights of a channel that stays, in the same constant, are no part of any."""
    body = "d = Gather <axis = 1> (a, i) e = Unsqueeze(d, o) b = Mul(a, e)"
    found = group(body, i=np.int64(7), o=np.array([1]))
    assert IMPORTANCE[name](found, Evidence()).shape == (7,)

"""How much weights count: by hand, and what is special about each criterion."""

import numpy as np

from graphopt.passes.quantize.observers import Gram
from graphopt.passes.sparsify import criteria
from graphopt.passes.sparsify.inputs import Seen, Spread

RNG = np.random.default_rng(6)
WEIGHTS = np.array([[1.0, -3.0], [2.0, 1.0], [-1.0, 0.5]])


def seen(rows: np.ndarray) -> Seen:
    found = Seen(spread=Spread(), gram=Gram())
    for part in np.array_split(rows, 3):
        other = Seen(spread=Spread(), gram=Gram())
        other.add(part)
        found.join(other)
    return found


def test_every_criterion_scores_every_weight() -> None:
    inputs = seen(RNG.standard_normal((50, 3)))
    for criterion in criteria.CRITERIA.values():
        scores = criterion.score(WEIGHTS, inputs)
        assert scores.shape == WEIGHTS.shape
        assert (scores >= 0).all()


def test_wanda_is_magnitude_times_the_size_of_the_input() -> None:
    rows = RNG.standard_normal((50, 3)) * [1, 10, 0]
    expected = np.abs(WEIGHTS) * np.sqrt(np.square(rows).mean(axis=0))[:, None]
    np.testing.assert_allclose(criteria.wanda(WEIGHTS, seen(rows)), expected)


def test_correlation_shares_out_the_variance() -> None:
    rows = RNG.standard_normal((5000, 3)) * [1, 2, 3] + [5, 0, 0]
    scores = criteria.correlation(WEIGHTS, seen(rows))
    terms = rows[:, :, None] * WEIGHTS
    outputs = terms.sum(axis=1)
    for row, output in np.ndindex(WEIGHTS.shape):
        covariance = np.cov(terms[:, row, output], outputs[:, output], bias=True)[0, 1]
        np.testing.assert_allclose(scores[row, output], abs(covariance) / outputs[:, output].var(), rtol=1e-5)


def test_the_output_of_a_constant_input_has_no_variance_to_share() -> None:
    assert np.isfinite(criteria.correlation(WEIGHTS, seen(np.ones((9, 3))))).all()


def test_entropy_is_that_of_signs_and_powers_of_two() -> None:
    rows = np.stack([np.tile([1.0, -1.0], 8), np.full(16, 0.3), np.tile([0.0, 1.0, 2.0, 4.0], 4)], axis=1)
    found = seen(rows).spread
    assert found is not None
    np.testing.assert_allclose(found.entropies, [1, 0, 2], atol=1e-12)
    assert not criteria.entropy(WEIGHTS, seen(rows))[1].any()


def test_tiny_and_huge_inputs_have_an_entropy() -> None:
    spread = Spread()
    spread.add(np.array([[1e-30, 1e30], [-1e-30, -1e30]], np.float32))
    np.testing.assert_allclose(spread.entropies, [0, 1])


def test_comparable_scores_keep_their_order_and_the_best_is_one() -> None:
    scores = RNG.random((2, 5, 6))
    found = criteria.comparable(scores)
    assert (found.reshape(-1).argsort() == scores.reshape(-1).argsort()).all()
    assert found.max() == 1
    assert criteria.comparable(np.zeros((1, 2, 2))).max() == 0

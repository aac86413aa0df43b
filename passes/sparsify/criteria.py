"""How much a weight counts: functions of a group's matrix `[rows, outputs]` and of what its inputs were, to a score per weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.passes.sparsify.inputs import Seen

Score = Callable[[np.ndarray, Seen], np.ndarray]


def magnitude(weights: np.ndarray, seen: Seen) -> np.ndarray:
    """The size of the weight (Han et al., 2015)."""
    return np.asarray(np.abs(weights))


def wanda(weights: np.ndarray, seen: Seen) -> np.ndarray:
    """The size of the weight times the root mean square of its input (Sun et al., "A Simple and Effective Pruning Approach for
    Large Language Models", 2023)."""
    return np.asarray(np.abs(weights) * np.sqrt(seen.channels.mean_squares)[:, None])


def correlation(weights: np.ndarray, seen: Seen) -> np.ndarray:
    """The share of the variance of the output that is the covariance of this weight's term with it."""
    covariance = centred(seen)
    with_output = covariance @ weights
    variance = np.maximum((weights * with_output).sum(axis=0), np.finfo(np.float64).tiny)
    return np.asarray(np.abs(weights * with_output) / variance)


def entropy(weights: np.ndarray, seen: Seen) -> np.ndarray:
    """The size of the weight times the entropy of its input, whose values are told apart by sign and power of two."""
    assert seen.spread is not None
    return np.asarray(np.abs(weights) * seen.spread.entropies[:, None])


def centred(seen: Seen) -> np.ndarray:
    """The covariances of all pairs of rows."""
    assert seen.gram is not None
    means = seen.channels.means
    return np.asarray(seen.gram.products / max(seen.channels.count, 1) - np.outer(means, means))


@dataclass(frozen=True)
class Criterion:
    """A score, and what it has to know of the inputs beside their means and mean squares."""

    score: Score
    data: bool = True
    spread: bool = False
    gram: bool = False


CRITERIA: Mapping[str, Criterion] = {
    "magnitude": Criterion(magnitude, data=False),
    "wanda": Criterion(wanda),
    "correlation": Criterion(correlation, gram=True),
    "entropy": Criterion(entropy, spread=True),
}


def comparable(scores: np.ndarray) -> np.ndarray:
    """Scores that can be compared with those of other layers: the square of each, as a share of the sum of the squares that are
    no smaller (Lee et al., "Layer-Adaptive Sparsity for the Magnitude-Based Pruning", 2021)."""
    squares = np.square(scores).reshape(-1)
    order = np.argsort(squares, kind="stable")
    sums = np.cumsum(squares[order][::-1])[::-1]
    shares = np.empty_like(squares)
    shares[order] = squares[order] / np.maximum(sums, np.finfo(np.float64).tiny)
    return np.asarray(shares.reshape(scores.shape))

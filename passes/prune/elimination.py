"""In which order channels can go so that the others stand in for them best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphopt.passes.prune.groups import GONE

DAMPING = 1e-3
"""Of the mean of the diagonal, added to it."""

ROUNDS = 256
"""At most: in large groups several channels go at a time."""


@dataclass(frozen=True)
class Reader:
    """What reads channels: their covariance [places, places], that of each half of the samples, the weights by which it does
    [results, places], and which channel of the group is at which place."""

    covariance: NDArray[np.float64]
    halves: tuple[NDArray[np.float64], NDArray[np.float64]]
    weights: NDArray[np.float64]
    units: NDArray[np.int64]


def eliminate(size: int, readers: Sequence[Reader]) -> NDArray[np.float64]:
    """What is lost when a channel goes after all that are missed less, as a share of the variance of results, and never less than for
    one before it.

    The order is that of all samples. What is lost is that of either half where stand-ins are those of the other one: among many
    channels, few samples let each seem to be made of the others.
    """
    states = [_State(reader.weights, reader.units, reader.covariance) for reader in readers]
    trials = [_Trial(reader, half) for reader in readers for half in (0, 1)]
    scores, left, highest, lost = np.full(size, np.inf), np.ones(size, bool), 0.0, 0.0
    while left.any():
        costs = np.sum([state.costs(size) for state in states], axis=0) if states else np.zeros(size)
        costs = np.where(left, costs, np.inf)
        going = [
            unit for unit in np.argsort(costs, kind="stable")[: max(size // ROUNDS, 1)].tolist() if left[unit]
        ]
        for unit in going:
            for state in states:
                state.remove(unit)
            for trial in trials:
                trial.remove(unit)
        before, lost = lost, sum(trial.lost for trial in trials) / 2
        highest = max(highest, (lost - before) / len(going))
        scores[going], left[going] = highest, False
    return scores


class _State:
    """The inverse of the covariance and the weights, as they are after what has been removed."""

    def __init__(
        self, weights: NDArray[np.float64], units: NDArray[np.int64], covariance: NDArray[np.float64]
    ) -> None:
        damping = DAMPING * float(np.diag(covariance).mean()) + 1e-12
        self._inverse = np.linalg.inv(covariance + damping * np.eye(len(covariance)))
        self.weights = weights.copy()
        self._units = units
        self._power = power(weights, covariance)
        self._single = len(np.unique(units[units != GONE])) == int((units != GONE).sum())

    def costs(self, size: int) -> NDArray[np.float64]:
        """Of each channel, were it the next; of those with several places, whatever was removed counts nothing."""
        found = np.zeros(size)
        if self._single:
            inside = self._units != GONE
            squares = np.square(self.weights).sum(axis=0) / np.maximum(np.diag(self._inverse), 1e-30)
            found[self._units[inside]] = squares[inside]
            return found / self._power
        for unit in range(size):
            places = np.flatnonzero(self._units == unit)
            weights = self.weights[:, places]
            if weights.any():
                solved = np.linalg.lstsq(self._inverse[np.ix_(places, places)], weights.T, rcond=None)[0]
                found[unit] = float((weights.T * solved).sum())
        return found / self._power

    def remove(self, unit: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Let the other channels stand in for one. The change of the weights is the product of what is returned; None where there is none."""
        places = np.flatnonzero(self._units == unit)
        if not len(places):
            return None
        block, rows = self._inverse[np.ix_(places, places)], self._inverse[places]
        solved = np.linalg.lstsq(block, rows, rcond=None)[0]
        gone = self.weights[:, places]
        self.weights -= gone @ solved
        self._inverse -= rows.T @ solved
        self.weights[:, places] = 0
        self._inverse[places], self._inverse[:, places] = 0, 0
        self._inverse[places, places] = 1e30
        return gone, solved


class _Trial:
    """What is lost on one half of the samples where stand-ins are found on the other."""

    def __init__(self, reader: Reader, half: int) -> None:
        self._state = _State(reader.weights, reader.units, reader.halves[half])
        self._other, self._reader = reader.halves[1 - half], reader
        self._power = power(reader.weights, self._other)
        self._square = 0.0

    @property
    def lost(self) -> float:
        """The share of the variance of results."""
        return self._square / self._power

    def remove(self, unit: int) -> None:
        """As `_State` does. The square of the difference D of weights, D S D', is kept up to date: each change is one of low rank."""
        difference = self._state.weights - self._reader.weights
        change = self._state.remove(unit)
        if change is None:
            return
        gone, solved = change
        seen = self._other @ solved.T
        self._square += float((gone * (gone @ (solved @ seen)) - 2 * gone * (difference @ seen)).sum())


def power(weights: NDArray[np.float64], covariance: NDArray[np.float64]) -> float:
    """The variance of all results."""
    return max(float(((weights @ covariance) * weights).sum()), 1e-30)

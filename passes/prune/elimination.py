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
    """What reads channels: their covariance [places, places], the weights by which it does [results, places], and which channel of
    the group is at which place."""

    covariance: NDArray[np.float64]
    weights: NDArray[np.float64]
    units: NDArray[np.int64]


def eliminate(size: int, readers: Sequence[Reader]) -> NDArray[np.float64]:
    """What is lost when a channel goes after all that are missed less, as a share of the variance of results, and never less than
    for one before it."""
    states = [_State(reader) for reader in readers]
    scores, left, highest = np.full(size, np.inf), np.ones(size, bool), 0.0
    while left.any():
        costs = np.sum([state.costs(size) for state in states], axis=0) if states else np.zeros(size)
        costs = np.where(left, costs, np.inf)
        for unit in np.argsort(costs, kind="stable")[: max(size // ROUNDS, 1)].tolist():
            if left[unit]:
                highest = max(highest, float(costs[unit]))
                scores[unit] = highest
                left[unit] = False
                for state in states:
                    state.remove(unit)
    return scores


class _State:
    """The inverse of the covariance and the weights, as they are after what has been removed."""

    def __init__(self, reader: Reader) -> None:
        damping = DAMPING * float(np.diag(reader.covariance).mean()) + 1e-12
        self._inverse = np.linalg.inv(reader.covariance + damping * np.eye(len(reader.covariance)))
        self._weights = reader.weights.copy()
        self._units = reader.units
        self._power = max(
            float(np.einsum("op,pq,oq->", reader.weights, reader.covariance, reader.weights)), 1e-30
        )
        self._single = len(np.unique(reader.units[reader.units != GONE])) == int((reader.units != GONE).sum())

    def costs(self, size: int) -> NDArray[np.float64]:
        """Of each channel, were it the next; of those with several places, whatever was removed counts nothing."""
        found = np.zeros(size)
        if self._single:
            inside = self._units != GONE
            squares = np.square(self._weights).sum(axis=0) / np.maximum(np.diag(self._inverse), 1e-30)
            found[self._units[inside]] = squares[inside]
            return found / self._power
        for unit in range(size):
            places = np.flatnonzero(self._units == unit)
            weights = self._weights[:, places]
            if weights.any():
                solved = np.linalg.lstsq(self._inverse[np.ix_(places, places)], weights.T, rcond=None)[0]
                found[unit] = float((weights.T * solved).sum())
        return found / self._power

    def remove(self, unit: int) -> None:
        """Let the other channels stand in for one."""
        places = np.flatnonzero(self._units == unit)
        if not len(places):
            return
        block, rows = self._inverse[np.ix_(places, places)], self._inverse[places]
        solved = np.linalg.lstsq(block, rows, rcond=None)[0]
        self._weights -= self._weights[:, places] @ solved
        self._inverse -= rows.T @ solved
        self._weights[:, places] = 0
        self._inverse[places], self._inverse[:, places] = 0, 0
        self._inverse[places, places] = 1e30

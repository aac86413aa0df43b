"""k-means in one dimension, where it can be solved: clusters are intervals, and those of a prefix are found by dynamic programming.

Wang and Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming", 2011. Where the last interval
of a prefix begins grows with the prefix, so that a layer takes O(n log n).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphopt.passes.cluster.histogram import Sites, coarser

EXACT = 2048
"""Sites up to which the result is the optimum; of more the optimum of so many joined ones is improved."""

STEPS = 100
"""Of Lloyd's iteration, at most."""


def centres(sites: Sites, count: int) -> np.ndarray:
    """The ascending means of at most `count` clusters with the least sum of weighted squared distances."""
    coarse = coarser(sites, EXACT)
    *_, (_, found) = _layers(coarse, min(count, len(coarse)))
    return improved(sites, found)


def fewest_centres(sites: Sites, error: float, most: int) -> np.ndarray:
    """Those of as few clusters as have at most this weighted mean of squared distances, or of `most`."""
    coarse = coarser(sites, EXACT)
    allowed = error * sites.weights.sum()
    for left, found in _layers(coarse, min(most, len(coarse))):
        if left <= allowed:
            return improved(sites, found)
    return centres(sites, most)


def improved(sites: Sites, found: np.ndarray) -> np.ndarray:
    """Where Lloyd's iteration leads: every mean becomes that of the sites that are nearest to it."""
    sums = Sums(sites)
    for _ in range(STEPS):
        better = sums.means(np.searchsorted(sites.positions, (found[1:] + found[:-1]) / 2))
        if len(better) == len(found) and np.array_equal(better, found):
            break
        found = better
    return found


class Sums:
    """Prefix sums over sites, which give the mean and the error of any interval of them."""

    def __init__(self, sites: Sites) -> None:
        self.origin = np.average(sites.positions, weights=sites.weights)
        moved = sites.positions - self.origin
        self.counts, self.weights, self.firsts, self.seconds = (
            np.concatenate([[0.0], np.cumsum(each)])
            for each in (sites.counts, sites.weights, sites.weights * moved, sites.weights * moved**2)
        )

    def errors(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The sums of weighted squared distances from the means of intervals; none is empty."""
        weights, firsts = self.weights[ends] - self.weights[starts], self.firsts[ends] - self.firsts[starts]
        return np.asarray(np.maximum(self.seconds[ends] - self.seconds[starts] - firsts**2 / weights, 0.0))

    def means(self, inner: np.ndarray) -> np.ndarray:
        """Of the intervals between these ascending inner ends; empty ones are left out."""
        ends = np.unique(np.concatenate([[0], inner, [len(self.weights) - 1]]))
        return np.asarray(self.origin + np.diff(self.firsts[ends]) / np.diff(self.weights[ends]))


def _layers(sites: Sites, most: int) -> Iterator[tuple[float, np.ndarray]]:
    """The least error with 1, 2, ... `most` clusters, and their means."""
    sums, size = Sums(sites), len(sites)
    ends = np.arange(size + 1)
    best = np.concatenate([[0.0], sums.errors(np.zeros(size, np.int64), ends[1:])])
    starts: list[np.ndarray] = []
    yield float(best[-1]), sums.means(np.zeros(0, np.int64))
    for _ in range(1, most):
        best, start = _next_layer(sums, best, size)
        starts.append(start)
        yield float(best[-1]), sums.means(_inner_ends(starts, size))


def _inner_ends(starts: list[np.ndarray], size: int) -> np.ndarray:
    """Where the clusters of all sites begin, apart from the first."""
    found, end = [], size
    for start in reversed(starts):
        end = int(start[end])
        found.append(end)
    return np.array(found[::-1], np.int64)


def _next_layer(sums: Sums, best: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The least errors of all prefixes with one cluster more, and where the last one begins.

    Prefixes are taken in halves: between two whose last clusters are known to begin at a and b, it begins from a to b.
    """
    found, start = best.copy(), np.zeros(size + 1, np.int64)
    whole = np.array([size])
    start[whole], found[whole] = _last_start(sums, best, np.array([0]), whole - 1, whole)
    step = 1 << size.bit_length()
    while step > 1:
        step //= 2
        middles = np.arange(step, size, 2 * step)
        if not len(middles):
            continue
        lows = start[middles - step]
        highs = np.minimum(start[np.minimum(middles + step, size)], middles - 1)
        start[middles], found[middles] = _last_start(sums, best, lows, highs, middles)
    return found, start


def _last_start(
    sums: Sums, best: np.ndarray, lows: np.ndarray, highs: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each prefix the best start of its last cluster from `lows` to `highs`, and the error with it."""
    lengths = np.maximum(highs, lows) - lows + 1
    firsts = np.cumsum(lengths) - lengths
    candidates = np.arange(lengths.sum()) + np.repeat(lows - firsts, lengths)
    errors = best[candidates] + sums.errors(candidates, np.repeat(ends, lengths))
    least = np.minimum.reduceat(errors, firsts)
    matching = np.flatnonzero(errors == np.repeat(least, lengths))
    chosen = matching[np.searchsorted(matching, firsts)]
    return candidates[chosen], least

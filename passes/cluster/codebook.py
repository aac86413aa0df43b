"""A few values that stand for all weights of a tensor, and which of them stands for which weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.passes.cluster.histogram import CHUNK, Sites, histogram
from graphopt.passes.cluster.kmeans import Sums, centres, fewest_centres

MOST = 256
"""Values that a code of eight bits tells apart."""

STEPS = 30
"""Of the iteration that trades error for entropy."""


@dataclass(frozen=True)
class Codebook:
    """Ascending float32 `values`, and the float32 `bounds` between what each of them stands for; a bound belongs to the upper one."""

    values: np.ndarray
    bounds: np.ndarray

    def codes(self, weights: np.ndarray) -> np.ndarray:
        """uint8 indices of the values of float32 weights, in their shape."""
        flat, found = weights.reshape(-1), np.empty(weights.size, np.uint8)
        for start in range(0, len(flat), CHUNK):
            part = flat[start : start + CHUNK]
            found[start : start + CHUNK] = np.searchsorted(self.bounds, part, side="right")
        return found.reshape(weights.shape)


@dataclass(frozen=True)
class Size:
    """How many values a codebook has: `clusters`, or as few as have `sqnr_db`, the ratio of the weights' power to the error.

    `entropy` is the error, relative to that of k-means, that one bit saved may add; 0 is plain k-means.
    """

    clusters: int = 32
    sqnr_db: float | None = None
    entropy: float = 0.0
    whole: bool = False
    """Whether values are whole numbers."""


def make_codebook(weights: np.ndarray, size: Size, importance: np.ndarray | None = None) -> Codebook:
    """The codebook of least squared error of finite float32 weights, whose errors count as much as their `importance` says."""
    sites = histogram(weights, importance)
    found = _nearest(_centres(sites, size))
    if size.entropy:
        found = _entropy_constrained(sites, found, size.entropy)
    return _nearest(np.unique(np.rint(found.values))) if size.whole else found


def entropy(codes: np.ndarray) -> float:
    """Bits that a code takes on average, at least, if they are written one by one."""
    return _bits(np.bincount(codes.reshape(-1)))


def _bits(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _centres(sites: Sites, size: Size) -> np.ndarray:
    if size.sqnr_db is None:
        return centres(sites, size.clusters)
    power = np.average(sites.positions**2, weights=sites.weights)
    return fewest_centres(sites, float(power) / 10 ** (size.sqnr_db / 10), MOST)


def _nearest(values: np.ndarray) -> Codebook:
    return Codebook(values.astype(np.float32), ((values[1:] + values[:-1]) / 2).astype(np.float32))


def _entropy_constrained(sites: Sites, start: Codebook, slope: float) -> Codebook:
    """Least error plus `slope` times the entropy, in units of the error of `start`.

    Chou, Lookabaugh and Gray, "Entropy-constrained vector quantization", 1989: codes take as many bits as their frequency says, and
    values that nobody chooses any more vanish.
    """
    sums = Sums(sites)
    values, inner = start.values.astype(np.float64), np.searchsorted(sites.positions, start.bounds)
    ends = _ends(inner, sites)
    price = slope * sums.errors(ends[:-1], ends[1:]).sum() / sites.counts.sum()
    scale = price * sites.counts.sum() / sites.weights.sum()
    bounds = start.bounds.astype(np.float64)
    for _ in range(STEPS):
        ends = _ends(np.searchsorted(sites.positions, bounds), sites)
        values = sums.means(ends[1:-1])
        bits = -np.log2(np.diff(sums.counts[ends]) / sums.counts[-1])
        values, bounds = _cheapest(values, scale * bits)
    return Codebook(values.astype(np.float32), bounds.astype(np.float32))


def _ends(inner: np.ndarray, sites: Sites) -> np.ndarray:
    return np.unique(np.concatenate([[0], inner, [len(sites)]]))


def _cheapest(values: np.ndarray, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that are the cheapest somewhere, for squared distance plus price, and the bounds between them."""
    kept: list[int] = []
    bounds: list[float] = []
    for each in range(len(values)):
        while kept:
            last = kept[-1]
            middle = (values[last] + values[each]) / 2
            bound = middle + (prices[each] - prices[last]) / (2 * (values[each] - values[last]))
            if not bounds or bound > bounds[-1]:
                break
            kept.pop()
            bounds.pop()
        if kept:
            bounds.append(bound)
        kept.append(each)
    return values[kept], np.array(bounds)

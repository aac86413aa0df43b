"""Values of any number as a few ten thousand sites, in bounded memory: what k-means in one dimension needs to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BINS = 1 << 16
"""Of equal width; what falls into one of them becomes one site."""

CHUNK = 1 << 20
"""Values that are looked at together."""


@dataclass(frozen=True)
class Sites:
    """Ascending float64 `positions`, the `counts` of the values there, and what those weigh together. A site is never empty."""

    positions: np.ndarray
    counts: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def joined(self, numbers: np.ndarray) -> Sites:
        """Those with the same number as one site at their centre; `numbers` ascend from 0 without gaps."""
        counts, weights = (np.bincount(numbers, each) for each in (self.counts, self.weights))
        return Sites(np.bincount(numbers, self.weights * self.positions) / weights, counts, weights)


def histogram(values: np.ndarray, weights: np.ndarray | None = None) -> Sites:
    """The sites of finite float32 `values`, with positive float32 `weights` of the same shape or 1 each.

    Up to `BINS` values keep places of their own; more are sorted into `BINS` bins between their extremes.
    """
    flat = values.reshape(-1)
    heavy = None if weights is None else weights.reshape(-1)
    if len(flat) <= BINS:
        return _distinct(flat, heavy)
    low, high = float(flat.min()), float(flat.max())
    if low == high:
        return _distinct(flat[:1], np.array([len(flat)]) if heavy is None else heavy.sum(keepdims=True))
    counts, mass, moments = np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS)
    for part, share in _chunks(flat, heavy):
        bins = np.minimum(((part - low) * (BINS / (high - low))).astype(np.int64), BINS - 1)
        counts += np.bincount(bins, minlength=BINS)
        moments += np.bincount(bins, part if share is None else part * share, BINS)
        if share is not None:
            mass += np.bincount(bins, share, BINS)
    filled = counts > 0
    total = counts[filled] if heavy is None else mass[filled]
    return Sites(moments[filled] / total, counts[filled].astype(np.float64), total.astype(np.float64))


def coarser(sites: Sites, most: int) -> Sites:
    """At most `most` sites. Neighbours are joined where codewords of a good quantiser are sparse.

    Their density goes with the cube root of that of the values (Panter and Dite, "Quantization distortion in pulse-count
    modulation with nonuniform spacing of levels", 1951).
    """
    if len(sites) <= most:
        return sites
    density = np.cumsum(np.cbrt(sites.weights))
    numbers = np.minimum((density * (most / density[-1])).astype(np.int64), most - 1)
    return sites.joined(np.unique(numbers, return_inverse=True)[1])


def _distinct(flat: np.ndarray, heavy: np.ndarray | None) -> Sites:
    positions, numbers, counts = np.unique(flat, return_inverse=True, return_counts=True)
    total = counts if heavy is None else np.bincount(numbers, heavy)
    return Sites(positions.astype(np.float64), counts.astype(np.float64), total.astype(np.float64))


def _chunks(flat: np.ndarray, heavy: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        yield flat[part].astype(np.float64), None if heavy is None else heavy[part].astype(np.float64)

"""What is kept of the channels of a value while data passes: observers for `graphopt.accuracy.calibration`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 64
"""Of the histogram of a channel."""


@dataclass
class Moments:
    """Sums over positions of the products of channels along `axis`, the last of which is one that is always 1, of either half of the samples.

    `products` is `[2, channels + 1, channels + 1]` float64; batches of one sample go to the halves in turn.
    """

    axis: int
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    batches: int = 0

    def add(self, array: NDArray[np.generic]) -> None:
        """Another batch."""
        rows = _rows(array, self.axis)
        rows = np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)
        middle = len(rows) // 2 if len(array) > 1 else len(rows) * (self.batches % 2)
        parts = (rows[:middle], rows[middle:])
        self.join(Moments(self.axis, np.stack([part.T @ part for part in parts]), 1))

    def join(self, other: Moments) -> None:
        """All that `other` has seen."""
        self.products = self.products + other.products if self.products.size else other.products
        self.batches += other.batches

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Of the channels, `[channels, channels]`."""
        return _covariance(self.products.sum(axis=0))

    @property
    def halves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The covariance of each half of the samples; of all where one saw nothing."""
        if not self.products[:, -1, -1].all():
            return self.covariance, self.covariance
        return _covariance(self.products[0]), _covariance(self.products[1])


def _covariance(products: NDArray[np.float64]) -> NDArray[np.float64]:
    count = products[-1, -1]
    means = products[-1, :-1] / count
    return np.asarray(products[:-1, :-1] / count - np.outer(means, means))


@dataclass
class Histograms:
    """How often every channel along `axis` had which value: `[channels, BINS]`, between extremes that grow by doubling.

    Bins cover -radius to radius, which is a power of two and the same for all channels.
    """

    axis: int
    radius: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, BINS), np.int64))

    def add(self, array: NDArray[np.generic]) -> None:
        """Another batch."""
        rows = _rows(array, self.axis)
        if not rows.size:
            return
        radius = float(2.0 ** np.frexp(np.abs(rows).max())[1])
        places = np.clip(((rows / radius + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
        places += np.arange(rows.shape[1]) * BINS
        counts = np.bincount(places.reshape(-1), minlength=rows.shape[1] * BINS)
        self.join(Histograms(self.axis, radius, counts.reshape(-1, BINS)))

    def join(self, other: Histograms) -> None:
        """All that `other` has seen."""
        if not self.radius or not other.radius:
            self.radius, self.counts = max(
                (self.radius, self.counts), (other.radius, other.counts), key=lambda e: e[0]
            )
            return
        radius = max(self.radius, other.radius)
        self.counts = _coarser(self.counts, radius / self.radius) + _coarser(
            other.counts, radius / other.radius
        )
        self.radius = radius

    @property
    def entropies(self) -> NDArray[np.float64]:
        """Of the values of every channel, in bits."""
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        return np.asarray(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1))


def _rows(array: NDArray[np.generic], axis: int) -> NDArray[np.float64]:
    """A row for each position, in numbers that can be summed: integers and halves cannot."""
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    return rows.astype(np.float64)


def _coarser(counts: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    """The same histograms between extremes that are larger by a power of two."""
    while factor > 1:
        inner = counts.reshape(len(counts), BINS // 2, 2).sum(axis=2)
        counts = np.zeros_like(counts)
        counts[:, BINS // 4 : 3 * BINS // 4] = inner
        factor /= 2
    return counts

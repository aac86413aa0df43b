"""What is kept of values while data passes: observers for `graphopt.accuracy.calibration`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

HALF = 4096
"""Bins of a histogram on each side of zero."""

LEAST_EXPONENT = -99
"""Of the radius of a histogram, as a power of two: the reciprocal of its bins is a float32 still."""

MOMENTUM = 0.9
"""Weight of what was seen before in the moving averages of the extremes."""

Range = tuple[float, float]


@dataclass
class Seen:
    """The elements of a value over all samples: extremes, moving averages of the extremes of batches, a histogram around zero.

    The histogram's radius is a power of two; it is doubled, its bins joined in pairs, whenever an element lies outside.
    """

    low: float = np.inf
    high: float = -np.inf
    first: Range | None = None
    average: Range | None = None
    batches: int = 0
    radius: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))

    def add(self, array: np.ndarray) -> None:
        """Another batch; an empty one changes nothing."""
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        batch = Seen(low, high, (low, high), (low, high), 1)
        batch._widen(_power_of_two(max(abs(low), abs(high))))
        bins = (array.reshape(-1) * (HALF / batch.radius) + HALF).astype(np.int32)
        batch.counts += np.bincount(np.clip(bins, 0, 2 * HALF - 1), minlength=2 * HALF)
        self.join(batch)

    def join(self, other: Seen) -> None:
        """All that `other` has seen, after what this one has."""
        if other.first is None or other.average is None:
            return
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.average = self._averaged(other.average, other.first, other.batches)
        self.first = self.first or other.first
        self.batches += other.batches
        radius = max(self.radius, other.radius)
        self._widen(radius)
        self.counts += _coarser(other.counts, radius / other.radius)

    def _averaged(self, later: Range, first: Range, batches: int) -> Range:
        """The moving average over other batches too, which started with the first of them."""
        if self.average is None:
            return later
        fade = MOMENTUM**batches
        low, high = (
            new + fade * (old - start) for old, new, start in zip(self.average, later, first, strict=True)
        )
        return low, high

    @property
    def centres(self) -> np.ndarray:
        """The middle of every bin."""
        return (np.arange(2 * HALF) + 0.5 - HALF) * (self.radius / HALF)

    def _widen(self, radius: float) -> None:
        if self.radius:
            self.counts = _coarser(self.counts, radius / self.radius)
        self.radius = radius


def _power_of_two(size: float) -> float:
    """The least one that is larger than a number, within bounds."""
    return float(2.0 ** max(np.frexp(size)[1], LEAST_EXPONENT))


def _coarser(counts: np.ndarray, factor: float) -> np.ndarray:
    """A histogram around zero whose bins are wider by a power of two."""
    while factor > 1:
        sides = counts.reshape(2, HALF // 2, 2).sum(axis=2)
        counts = np.zeros_like(counts)
        counts[HALF // 2 : HALF], counts[HALF : HALF + HALF // 2] = sides
        factor /= 2
    return counts


@dataclass
class Channels:
    """The extremes of every channel along `axis` over all samples, its mean and its mean square."""

    axis: int = -1
    low: np.ndarray = field(default_factory=lambda: np.zeros(0))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    count: int = 0

    def add(self, array: np.ndarray) -> None:
        """Another batch."""
        rows = np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis])
        if not rows.size:
            return
        totals = rows.sum(axis=0, dtype=np.float64), np.square(rows, dtype=np.float64).sum(axis=0)
        self.join(Channels(self.axis, rows.min(axis=0), rows.max(axis=0), *totals, len(rows)))

    def join(self, other: Channels) -> None:
        """All that `other` has seen."""
        if not self.count:
            self.__dict__.update(vars(other))
            return
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.sums, self.squares = self.sums + other.sums, self.squares + other.squares
        self.count += other.count

    def divided(self, factors: np.ndarray) -> Channels:
        """Those of the channels divided by positive factors."""
        totals = self.sums / factors, self.squares / factors**2
        return Channels(self.axis, self.low / factors, self.high / factors, *totals, self.count)

    @property
    def range(self) -> Range:
        """Of all channels."""
        return float(self.low.min()), float(self.high.max())

    @property
    def means(self) -> np.ndarray:
        return self.sums / max(self.count, 1)

    @property
    def mean_squares(self) -> np.ndarray:
        return self.squares / max(self.count, 1)


@dataclass
class Gram:
    """The products of all pairs of channels, which are the last axis, summed over all samples: `[channels, channels]` float64."""

    products: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, array: np.ndarray) -> None:
        """Another batch."""
        rows = array.reshape(-1, array.shape[-1])
        self.join(Gram((rows.T @ rows).astype(np.float64)))

    def join(self, other: Gram) -> None:
        """All that `other` has seen."""
        self.products = self.products + other.products if self.products.size else other.products


def joined(observers: list[Seen]) -> Seen:
    """What all of them have seen together."""
    together = Seen()
    for each in observers:
        together.join(each)
    return together

"""What has been seen of a value, and the ranges that integers are to cover for it: one function a method.

Whatever a method leaves out of its range is clipped; the step is a 255th of the range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

HALF = 4096
"""Bins of a histogram on each side of zero."""

LEAST_RADIUS = 1e-30
"""Of a histogram: the reciprocal of its bins is a float32 still."""

LEVELS = 256

MOMENTUM = 0.9
"""Weight of what was seen before in the moving averages of the extremes."""

PERCENTILE = 99.99

SHRINKAGES = np.linspace(0.2, 1.0, 81)
"""Shares of the full range that the searching methods try."""

Range = tuple[float, float]


@dataclass
class Seen:
    """The elements of a value over all samples: extremes, moving averages of the extremes, a histogram around zero.

    The histogram's radius is doubled, its bins joined in pairs, whenever an element lies outside; so memory is bounded.
    """

    low: float = np.inf
    high: float = -np.inf
    average: Range | None = None
    radius: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))

    def add(self, array: np.ndarray) -> None:
        """Another batch, of finite numbers; an empty one changes nothing."""
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        before = self.average or (low, high)
        self.average = (
            MOMENTUM * before[0] + (1 - MOMENTUM) * low,
            MOMENTUM * before[1] + (1 - MOMENTUM) * high,
        )
        self._widen(max(abs(low), abs(high)))
        bins = (array.reshape(-1) * (HALF / self.radius) + HALF).astype(np.int32)
        self.counts += np.bincount(np.clip(bins, 0, 2 * HALF - 1), minlength=2 * HALF)

    @property
    def centres(self) -> np.ndarray:
        """The middle of every bin."""
        return (np.arange(2 * HALF) + 0.5 - HALF) * (self.radius / HALF)

    def _widen(self, radius: float) -> None:
        if not self.radius:
            self.radius = max(radius, LEAST_RADIUS)
        while radius > self.radius:
            sides = self.counts.reshape(2, HALF // 2, 2).sum(axis=2)
            self.counts = np.zeros_like(self.counts)
            self.counts[HALF // 2 : HALF], self.counts[HALF : HALF + HALF // 2] = sides
            self.radius *= 2


def min_max(seen: Seen) -> Range:
    """All that was seen."""
    return seen.low, seen.high


def moving_average(seen: Seen) -> Range:
    """The extremes of batches, averaged with weights that fade."""
    return seen.average or (seen.low, seen.high)


def percentile(seen: Seen) -> Range:
    """All but the outermost elements on each side."""
    share = np.cumsum(seen.counts) / seen.counts.sum()
    outside = (1 - PERCENTILE / 100) / 2
    first, last = np.searchsorted(share, outside), np.searchsorted(share, 1 - outside)
    step = seen.radius / HALF
    return max((first - HALF) * step, seen.low), min((last + 1 - HALF) * step, seen.high)


def mean_squared_error(seen: Seen) -> Range:
    """The one with the least sum of squared differences between elements and what they are rounded to."""

    def error(low: float, high: float) -> float:
        step = (high - low) / (LEVELS - 1)
        inside = np.clip(np.rint((seen.centres - low) / step), 0, LEVELS - 1) * step + low
        return float((seen.counts * (seen.centres - inside) ** 2).sum())

    return _best(seen, error)


def entropy(seen: Seen) -> Range:
    """The one that loses least information: the divergence of Kullback and Leibler between elements and integers.

    Migacz, "8-bit Inference with TensorRT", 2017.
    """

    def divergence(low: float, high: float) -> float:
        inside = (seen.centres >= low) & (seen.centres <= high)
        kept = seen.counts[inside].astype(np.float64)
        if kept.size < LEVELS:
            return np.inf
        clipped = kept.copy()
        clipped[0] += seen.counts[seen.centres < low].sum()
        clipped[-1] += seen.counts[seen.centres > high].sum()
        level = np.arange(kept.size) * LEVELS // kept.size
        present = kept > 0
        sums, sizes = np.bincount(level, kept, LEVELS), np.bincount(level, present, LEVELS)
        flat = np.where(present, (sums / np.maximum(sizes, 1))[level], 0.0)
        p, q = clipped / clipped.sum(), flat / flat.sum()
        where = (p > 0) & (q > 0)
        return float((p[where] * np.log(p[where] / q[where])).sum() + p[(p > 0) & (q == 0)].sum() * 10)

    return _best(seen, divergence)


def _best(seen: Seen, loss: Callable[[float, float], float]) -> Range:
    """The range around zero, of shares of the full one, with the least loss."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if low == high:
        return low, high
    share = min(SHRINKAGES[::-1], key=lambda share: loss(share * low, share * high))
    return float(share * low), float(share * high)


METHODS: Mapping[str, Callable[[Seen], Range]] = {
    "entropy": entropy,
    "min-max": min_max,
    "moving-average": moving_average,
    "mse": mean_squared_error,
    "percentile": percentile,
}


@dataclass(frozen=True)
class Parameters:
    """uint8 numbers stand for `(number - zero) * scale`; 0.0 is one of them."""

    scale: np.float32
    zero: np.uint8


def parameters(found: Range) -> Parameters:
    """Those that cover a range and zero with all integers."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = np.float32((high - low) / (LEVELS - 1))
    if not scale > 0:
        return Parameters(np.float32(1.0), np.uint8(0))
    return Parameters(scale, np.uint8(np.clip(np.rint(-low / scale), 0, LEVELS - 1)))

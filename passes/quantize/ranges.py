"""The ranges that integers are to cover, from what has been seen of a value: one function a method.

Whatever a method leaves out of its range is clipped; the step is a 255th of the range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.passes.quantize.observers import HALF, Range, Seen

LEVELS = 256

PERCENTILE = 99.99

LACKING = 10.0
"""The logarithm of the ratio of a share to none."""

SHRINKAGES = np.linspace(0.2, 1.0, 81)
"""Shares of the full range that the searching methods try."""


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

    Migacz, "8-bit Inference with TensorRT", 2017. Zeros, which integers hold exactly and rectifiers make by the million, count as
    little as their neighbours.
    """
    counts = seen.counts.astype(np.float64)
    counts[HALF] = min(counts[HALF], counts[HALF + 1])

    def divergence(low: float, high: float) -> float:
        inside = (seen.centres >= low) & (seen.centres <= high)
        kept = counts[inside]
        if kept.size < LEVELS:
            return np.inf
        clipped = kept.copy()
        clipped[0] += counts[seen.centres < low].sum()
        clipped[-1] += counts[seen.centres > high].sum()
        return _divergence(clipped, _flattened(kept))

    return _best(seen, divergence)


def _flattened(counts: np.ndarray) -> np.ndarray:
    """What is left of a histogram once the elements of a level are alike: spread over the bins that had some."""
    level = np.arange(counts.size) * LEVELS // counts.size
    present = counts > 0
    sums, sizes = np.bincount(level, counts, LEVELS), np.bincount(level, present, LEVELS)
    return np.where(present, (sums / np.maximum(sizes, 1))[level], 0.0)


def _divergence(counts: np.ndarray, others: np.ndarray) -> float:
    """Of two histograms, from the first; what the second lacks altogether weighs `LACKING` each."""
    if not counts.any() or not others.any():
        return 0.0
    p, q = counts / counts.sum(), others / others.sum()
    both, lacking = (p > 0) & (q > 0), (p > 0) & (q == 0)
    return float((p[both] * np.log(p[both] / q[both])).sum() + LACKING * p[lacking].sum())


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
    """Those that cover a range and zero with all integers; a range next to nothing is nothing."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = np.float32((high - low) / (LEVELS - 1))
    if scale < np.finfo(np.float32).tiny:
        return Parameters(np.float32(1.0), np.uint8(0))
    return Parameters(scale, np.uint8(np.clip(np.rint(-low / scale), 0, LEVELS - 1)))

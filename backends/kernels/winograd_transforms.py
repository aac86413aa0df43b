"""The matrices of Winograd's minimal filtering F(m x m, r x r), and how far its float32 result is from the exact one.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; the construction from interpolation points follows
Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TAPS = 3
"""Height and width of the filters."""

POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2)),
}
"""Output tile -> interpolation points besides infinity. Those of 4 have a fourth of the error of the usual 0, 1, -1, 2, -2."""


@dataclass(frozen=True)
class Transforms:
    """`output @ ((weights @ g) * (input @ d))` are `tile` neighbouring outputs of filter g over data d, along one axis."""

    tile: int
    output: Array
    weights: Array
    input: Array

    @property
    def points(self) -> int:
        """Products along one axis."""
        return self.tile + TAPS - 1


@cache
def transforms(tile: int) -> Transforms:
    """The float64 matrices `[tile, points]`, `[points, taps]`, `[points, points]`."""
    points = POINTS[tile]
    scales = [_product([p - q for q in points if q != p]) for p in points]
    output = [[p**i for p in points] + [Fraction(int(i == tile - 1))] for i in range(tile)]
    weights = [[p**i / scale for i in range(TAPS)] for p, scale in zip(points, scales, strict=True)]
    weights.append([Fraction(int(i == TAPS - 1)) for i in range(TAPS)])
    data = [[*_polynomial([q for q in points if q != p]), Fraction(0)] for p in points]
    data.append(_polynomial(points))
    return Transforms(tile, *(np.array(rows, np.float64) for rows in (output, weights, data)))


def transform_weights(weights: Array, tile: int) -> Array:
    """`[filters, channels, 3, 3]` to `[points, points, filters, channels]`, computed in float64."""
    matrix = transforms(tile).weights
    exact: Array = np.einsum("ij,fcjk,lk->ilfc", matrix, weights.astype(np.float64), matrix, optimize=True)
    return exact.astype(weights.dtype)


def relative_error(weights: Array, tile: int, samples: int = 16) -> float:
    """Largest difference of float32 results from exact ones, over the largest result, on random inputs that are not negative."""
    known = transforms(tile)
    rng = np.random.default_rng(0)
    channels = weights.shape[1]
    data = np.abs(rng.standard_normal((samples, channels, known.points, known.points))).astype(np.float32)
    moved, back = known.input.astype(np.float32), known.output.astype(np.float32)
    inputs = np.einsum("ij,scjk,lk->ilsc", moved, data, moved, optimize=True)
    products = inputs @ transform_weights(weights, tile).swapaxes(-1, -2)
    results = np.einsum("ij,jksf,lk->ilsf", back, products, back, optimize=True)
    windows = np.lib.stride_tricks.sliding_window_view(data.astype(np.float64), (TAPS, TAPS), (2, 3))
    exact = np.einsum("scilyx,fcyx->ilsf", windows, weights.astype(np.float64), optimize=True)
    return float(np.abs(results - exact).max() / max(np.abs(exact).max(), np.finfo(np.float64).tiny))


def _product(factors: Sequence[Fraction]) -> Fraction:
    result = Fraction(1)
    for factor in factors:
        result *= factor
    return result


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, the constant one first, of the monic polynomial with these roots."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [a - root * b for a, b in zip(shifted, [*result, Fraction(0)], strict=True)]
    return result

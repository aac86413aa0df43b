"""Weights that are sums of fewer numbers: those of Winograd's algorithm, `m w m^T` of every filter `w`.

Everything is computed in float64, in one order, and rounded once, so that every machine gets the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 16
"""Taps, or points, along an axis."""


@dataclass(frozen=True)
class Expansion:
    """Blocks of `taps * taps` rows become `points * points` rows. `runs` are how many blocks there are, and how long their rows are."""

    points: int
    taps: int
    runs: Sequence[tuple[int, int]]

    @property
    def before(self) -> int:
        """How many numbers there are at first."""
        return self.taps**2 * sum(blocks * length for blocks, length in self.runs)

    @property
    def after(self) -> int:
        """How many they become."""
        return self.points**2 * sum(blocks * length for blocks, length in self.runs)

    def to_json(self) -> list[Any]:
        """Plain types."""
        return [self.points, self.taps, [list(run) for run in self.runs]]


def parse_expansion(content: Any) -> Expansion:
    """From plain types. Raises ValueError for others, and for sizes that make no sense."""
    try:
        points, taps, runs = content
        found = Expansion(points, taps, [(blocks, length) for blocks, length in runs])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{content} is no expansion") from error
    sizes = [points, taps, *(size for run in found.runs for size in run)]
    if not all(type(size) is int and size > 0 for size in sizes) or max(points, taps) > MOST:
        raise ValueError(f"an expansion of sizes {sizes} makes no sense")
    return found


def expand(
    numbers: np.ndarray[Any, Any], matrix: np.ndarray[Any, Any], expansion: Expansion
) -> np.ndarray[Any, Any]:
    """float32 `[after]` of float32 `[before]`, by a float64 matrix `[points, taps]` along both axes of the rows of every block."""
    found, start = np.empty(expansion.after, np.float32), 0
    end, taps, points = 0, expansion.taps, expansion.points
    for blocks, length in expansion.runs:
        for _ in range(blocks):
            block = numbers[start : start + taps * taps * length].reshape(taps, taps * length)
            start += block.size
            lines = _combined(matrix, block.astype(np.float64)).reshape(points, taps, length)
            rows = _combined(matrix, np.ascontiguousarray(lines.swapaxes(0, 1)))
            found[end : end + rows.size] = rows.swapaxes(0, 1).reshape(-1)
            end += rows.size
    return found


def _combined(matrix: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The product of a matrix and rows, from first to last."""
    found = np.zeros((len(matrix), *rows.shape[1:]))
    for result, factors in zip(found, matrix, strict=True):
        for factor, row in zip(factors, rows, strict=True):
            if factor:
                result += factor * row
    return found

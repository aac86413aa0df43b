"""Weights of few bits: every block of rows of a column has a scale and a zero point of its own.

Levels are rounded to nearest, or one row after another, each making up for what rounding the rows before it changed (Frantar et
al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BITS = 4
HIGHEST = 2**BITS - 1

SHRINKAGES = np.linspace(0.6, 1.0, 21)
"""Shares of the extremes of a block that its range may have."""

DAMPING = 0.01
"""Of the mean square of the channels, added to each, so that the matrix of their products has an inverse."""


@dataclass(frozen=True)
class Blocks:
    """`(levels - zeros) * scales`, the last two repeated `size` times: uint8 `[k, n]`, `[ceil(k / size), n]` and float32 of that shape."""

    levels: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray


def nearest(matrix: np.ndarray, size: int) -> Blocks:
    """`matrix` `[k, n]` float32 in blocks of `size` rows, with the ranges of least squared error."""
    parts = [_rounded(rows, *_parameters(rows)) for rows in _split(matrix, size)]
    return _together(parts)


def reconstructed(matrix: np.ndarray, products: np.ndarray, size: int) -> Blocks:
    """The same with the least squared error of what the matrix is multiplied into, whose channels have these sums of `products`,
    `[k, k]`."""
    factor = inverse_factor(products)
    left, parts = matrix.astype(np.float64), []
    for start in range(0, len(matrix), size):
        rows = left[start : start + size]
        scales, zeros = _parameters(rows.astype(np.float32))
        part, errors = _row_by_row(rows, scales, zeros, factor[start : start + size, start : start + size])
        parts.append(part)
        end = start + len(rows)
        left[end:] -= factor[start:end, end:].T @ errors
    return _together(parts)


def values(blocks: Blocks, size: int) -> np.ndarray:
    """The float32 numbers that the levels stand for."""
    rows = len(blocks.levels)
    zeros, scales = (np.repeat(each, size, axis=0)[:rows] for each in (blocks.zeros, blocks.scales))
    return np.asarray((blocks.levels.astype(np.float32) - zeros) * scales)


def _row_by_row(
    rows: np.ndarray, scales: np.ndarray, zeros: np.ndarray, factor: np.ndarray
) -> tuple[Blocks, np.ndarray]:
    """The levels of one block, and what is left to make up for, by row."""
    left, levels, errors = rows.copy(), [], np.zeros_like(rows)
    for row in range(len(rows)):
        part = _rounded(left[row : row + 1], scales, zeros)
        levels.append(part.levels)
        errors[row] = (left[row] - values(part, 1)[0]) / factor[row, row]
        left[row + 1 :] -= np.outer(factor[row, row + 1 :], errors[row])
    return Blocks(np.concatenate(levels), zeros, scales), errors


def inverse_factor(products: np.ndarray) -> np.ndarray:
    """The upper factor of Cholesky of the inverse; channels that are always zero count as independent of the others."""
    matrix = products.astype(np.float64).copy()
    diagonal = np.diag_indices(len(matrix))
    matrix[diagonal] += DAMPING * (matrix[diagonal].mean() or 1.0)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(matrix)).T)


def _parameters(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scales and zero points of one block `[size, n]`, `[1, n]` each, that round its columns with least squared error."""
    low, high = np.minimum(rows.min(axis=0), 0), np.maximum(rows.max(axis=0), 0)
    best, least = _covering(low, high), np.full(low.shape, np.inf)
    for below in SHRINKAGES:
        for above in SHRINKAGES:
            scales, zeros = _covering(below * low, above * high)
            error = np.square(values(_rounded(rows, scales, zeros), len(rows)) - rows).sum(axis=0)
            better = error < least
            least = np.where(better, error, least)
            best = np.where(better, scales, best[0]), np.where(better, zeros, best[1])
    return best


def _covering(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those with which all levels cover a range that holds zero."""
    scales = (high - low)[None].astype(np.float32) / HIGHEST
    scales = np.where(scales > 0, scales, np.float32(1.0)).astype(np.float32)
    return scales, np.clip(np.rint(-low[None] / scales), 0, HIGHEST).astype(np.uint8)


def _rounded(rows: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> Blocks:
    return Blocks(
        np.clip(np.rint(rows / scales) + zeros, 0, HIGHEST).astype(np.uint8),
        zeros,
        scales,
    )


def _split(matrix: np.ndarray, size: int) -> list[np.ndarray]:
    return [matrix[start : start + size] for start in range(0, len(matrix), size)]


def _together(parts: list[Blocks]) -> Blocks:
    return Blocks(
        np.concatenate([part.levels for part in parts]),
        np.concatenate([part.zeros for part in parts]),
        np.concatenate([part.scales for part in parts]),
    )

"""Weights as codes: which value of which codebook stands for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.passes.cluster.codebook import Codebook, Size, entropy, make_codebook
from graphopt.passes.cluster.matrices import Moments, matrices, weights
from graphopt.passes.quantize.blocks import DAMPING, inverse_factor

BLOCK = 128
"""Rows whose errors are handed on together."""

SENSITIVITY, RECONSTRUCT = "sensitivity", "reconstruct"


@dataclass(frozen=True)
class Coded:
    """uint8 `codes` in the shape of the weights; equal groups of channels along `axis` have a row of `values` `[groups, k]` each."""

    codes: np.ndarray
    values: np.ndarray
    axis: int

    @property
    def weights(self) -> np.ndarray:
        """What the codes stand for."""
        channels = np.moveaxis(self.codes, self.axis, 0)
        rows = channels.reshape(len(self.values), -1)
        found = np.take_along_axis(self.values, rows.astype(np.intp), axis=1).reshape(channels.shape)
        return np.ascontiguousarray(np.moveaxis(found, 0, self.axis))

    @property
    def bits(self) -> float:
        """The entropy of all codes together."""
        return entropy(self.codes) * self.codes.size


def encode(
    array: np.ndarray,
    axis: int,
    size: Size,
    group: int | None = None,
    moments: Moments | None = None,
    techniques: Sequence[str] = (),
) -> Coded:
    """Codes of finite float32 weights with output channels along an axis; at most `group` of these share a codebook, by default all.

    With `moments` of what the weights are multiplied by, codebooks may weigh errors by them, and rows may make up for one another's
    errors.
    """
    channels = array.shape[axis]
    group = _largest_divisor(channels, group or channels)
    importance = _importance(array, axis, moments) if moments and SENSITIVITY in techniques else None
    parts = [_along(axis, slice(start, start + group)) for start in range(0, channels, group)]
    books = [
        make_codebook(array[part], size, None if importance is None else importance[part]) for part in parts
    ]
    codes = np.empty(array.shape, np.uint8)
    for part, book in zip(parts, books, strict=True):
        codes[part] = book.codes(array[part])
    if moments is not None and moments.products is not None and RECONSTRUCT in techniques:
        codes = _reconstructed(array, axis, books, group, moments.products)
    most = max(len(book.values) for book in books)
    padded = [np.pad(book.values, (0, most - len(book.values)), "edge") for book in books]
    return Coded(codes, np.stack(padded), axis)


def _largest_divisor(number: int, most: int) -> int:
    return max(divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)


def _importance(array: np.ndarray, axis: int, moments: Moments) -> np.ndarray:
    """Of every weight the mean square of what it is multiplied by, and a little for those that never met anything."""
    squares = moments.mean_squares
    squares = squares + DAMPING * (squares.mean() or 1.0)
    columns = array.shape[axis] // len(squares)
    spread = np.broadcast_to(squares[:, :, None], (*squares.shape, columns))
    return weights(spread, axis, array.shape).astype(np.float32)


def _reconstructed(
    array: np.ndarray, axis: int, books: Sequence[Codebook], group: int, products: np.ndarray
) -> np.ndarray:
    """Codes with which rows make up for the errors of those before them."""
    found = matrices(array, axis, len(products))
    columns = found.shape[2]
    codes = np.empty(found.shape, np.uint8)
    for number, (matrix, pairs) in enumerate(zip(found, products, strict=True)):
        numbers = (number * columns + np.arange(columns)) // group
        for book in np.unique(numbers):
            mine = numbers == book
            codes[number][:, mine] = compensated(matrix[:, mine], pairs, books[book])
    return weights(codes, axis, array.shape)


def compensated(matrix: np.ndarray, products: np.ndarray, book: Codebook) -> np.ndarray:
    """uint8 codes of a matrix `[k, n]` with a small error of what it is multiplied into, whose channels have these sums of
    `products`, `[k, k]`.

    Rows are rounded in the order of their weight, each making up for those before it (Frantar et al., "GPTQ: Accurate Post-Training
    Quantization for Generative Pre-trained Transformers", 2023).
    """
    order = np.argsort(-np.diag(products), kind="stable")
    factor = inverse_factor(products[np.ix_(order, order)])
    left, codes = matrix[order].astype(np.float64), np.empty(matrix.shape, np.uint8)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        part = slice(start, end)
        codes[order[part]], errors = _row_by_row(left[part], factor[part, part], book)
        left[end:] -= factor[part, end:].T @ errors
    return codes


def _row_by_row(rows: np.ndarray, factor: np.ndarray, book: Codebook) -> tuple[np.ndarray, np.ndarray]:
    """The codes of one block, and what is left to make up for, by row."""
    codes, errors = np.empty(rows.shape, np.uint8), np.zeros_like(rows)
    for row in range(len(rows)):
        codes[row] = book.codes(rows[row].astype(np.float32))
        errors[row] = (rows[row] - book.values[codes[row]]) / factor[row, row]
        rows[row + 1 :] -= np.outer(factor[row, row + 1 :], errors[row])
    return codes, errors

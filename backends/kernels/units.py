"""Weights for instructions that multiply a unit of neighbouring channels at once, packed at compile time: four or eight bytes, or two
halves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile
from graphopt.backends.kernels.gemm import segments
from graphopt.backends.kernels.panels import pack_panels


class UnitArithmetic(Protocol):
    """An instruction takes `unit` neighbouring channels of an activation."""

    @property
    def unit(self) -> int: ...

    @property
    def lanes(self) -> int: ...

    @property
    def step(self) -> int:
        """Packed weights of one vector of filters and one unit."""

    @property
    def element(self) -> str:
        """Dtype of a weight."""

    @property
    def weights_dtype(self) -> str:
        """Of packed weights."""

    def pack(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`[..., vectors * lanes, unit]` as `step` elements a vector."""


def in_units(shape: ConvShape, unit: int) -> ConvShape:
    """The convolution with a channel for every `unit`, whose steps and tiles cost as much."""
    return replace(shape, channels=-(-shape.channels // unit))


def units_of_block(block: int, unit: int) -> int:
    """Steps that a block of channels takes; one where it takes several blocks."""
    return max(block // unit, 1)


def pack_unit_panels(
    matrix: np.ndarray[Any, Any], vectors: int, arithmetic: UnitArithmetic
) -> np.ndarray[Any, Any]:
    """`[k, n]` to `[panel, k / unit, vectors * lanes, unit]`, missing columns and rows zero."""
    k, n = matrix.shape
    unit = arithmetic.unit
    padded = np.zeros((filled_up(k, unit), n), arithmetic.element)
    padded[:k] = matrix
    rows = [pack_panels(padded[row::unit], vectors, arithmetic.lanes) for row in range(unit)]
    return arithmetic.pack(np.stack(rows, axis=-1)).astype(arithmetic.weights_dtype)


def pack_unit_filters(
    weights: np.ndarray[Any, Any], shape: ConvShape, tile: ConvTile, arithmetic: UnitArithmetic, block: int
) -> np.ndarray[Any, Any]:
    """`[filters * groups, channels, kh, kw]` to `[groups, filter tiles, channel blocks, kh, kw, unit of a block, tile vector, lane,
    channel of a unit]`, flat, filters and channels filled up with zeros; `block` is that of the input, or a unit where that is more."""
    lanes, unit, (kh, kw) = arithmetic.lanes, arithmetic.unit, shape.window.kernel
    filters, channels = filled_up(shape.filters, lanes), filled_up(shape.channels, unit)
    units = units_of_block(block, unit)
    padded = np.zeros((shape.groups, filters, channels, kh, kw), arithmetic.element)
    padded[:, : shape.filters, : shape.channels] = weights.reshape(shape.groups, -1, *weights.shape[1:])
    split = padded.reshape(shape.groups, filters, -1, unit, kh, kw)
    tiles = []
    for part in segments(filters, tile.blocks * lanes):
        chosen = split[:, part.start : part.start + part.repeat * part.extent]
        for number in range(part.repeat):
            own = chosen[:, number * part.extent : (number + 1) * part.extent]
            blocks = [
                arithmetic.pack(own[:, :, first : first + units].transpose(0, 4, 5, 2, 1, 3))
                for first in range(0, split.shape[2], units)
            ]
            tiles.append(np.concatenate([block.reshape(shape.groups, -1) for block in blocks], 1))
    return np.concatenate(tiles, 1).reshape(-1).astype(arithmetic.weights_dtype)


def filled_up(count: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-count // unit) * unit

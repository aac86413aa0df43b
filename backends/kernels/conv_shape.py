"""The shape of a convolution, and the register tile that a small model of the core finds best for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.tile_cost import axis_cycles, fits, step_cycles, weights_cycles
from graphopt.backends.kernels.window import Window

MOST_BLOCKS, MOST_COLUMNS, MOST_ROWS = 8, 30, 4

FEW_CHANNELS_COLUMNS = 8
"""Most columns of a tile where the loop over channels is so short that LLVM unrolls it, and then keeps many scalars."""


@dataclass(frozen=True)
class ConvShape:
    """`channels` and `filters` are those of one group."""

    batch: int
    groups: int
    channels: int
    filters: int
    window: Window

    def is_aligned(self, lanes: int) -> bool:
        """Whether every group starts on a whole vector of output channels, so that the output can be blocked."""
        return self.groups == 1 or self.filters % lanes == 0

    @property
    def depth(self) -> int:
        """Multiply-adds of one output."""
        return self.channels * math.prod(self.window.kernel)

    @property
    def macs(self) -> int:
        return self.batch * self.groups * self.filters * math.prod(self.window.output) * self.depth


@dataclass(frozen=True)
class ConvTile:
    """Vectors of output channels x output columns x output rows held in registers."""

    blocks: int
    columns: int
    rows: int = 1


def choose_tile(shape: ConvShape, core: Core) -> ConvTile:
    """The tile with the fewest estimated cycles over the image."""
    tiles = tiles_that_fit(shape, core)
    return min(tiles, key=lambda tile: direct_cycles(shape, tile, core), default=ConvTile(1, 1))


def direct_cycles(shape: ConvShape, tile: ConvTile, core: Core) -> float:
    """Estimated cycles of the convolution on one core."""
    height, width = shape.window.output

    def of_rows(rows: int) -> float:
        def of_columns(columns: int) -> float:
            return axis_cycles(
                -(-shape.filters // core.lanes),
                tile.blocks,
                lambda blocks: step_cycles(blocks, rows * columns, shape.depth, core),
            )

        return axis_cycles(width, tile.columns, of_columns)

    steps = shape.batch * shape.groups * shape.depth
    weights = shape.groups * shape.filters * shape.depth
    return steps * axis_cycles(height, tile.rows, of_rows) + weights_cycles(weights)


def flatten_pointwise(shape: ConvShape) -> ConvShape:
    """A pointwise convolution seen as one long row, so that tiles need not end with a row of the image."""
    return replace(shape, window=shape.window.flattened()) if shape.window.is_pointwise else shape


def tiles_that_fit(shape: ConvShape, core: Core) -> Iterator[ConvTile]:
    """Those that fit into registers. Several rows only where a row alone makes a small tile."""
    height, width = shape.window.output
    most_columns = MOST_COLUMNS if shape.channels >= core.lanes else FEW_CHANNELS_COLUMNS
    for blocks in range(1, min(-(-shape.filters // core.lanes), MOST_BLOCKS) + 1):
        for columns in range(1, min(width, most_columns) + 1):
            for rows in range(1, min(height, MOST_ROWS if columns == width else 1) + 1):
                if fits(blocks, columns * rows, core):
                    yield ConvTile(blocks, columns, rows)

"""Which tile a team computes, by a model of what multiprocessors do in rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

MULTIPROCESSORS = 108
"""Of the smallest GPU that kernels are made for with full tiles (A100); an H100 has 132."""

MOST_PARTS = 32

LEAST_STEPS = 4
"""Of a part of the depth, below which adding up parts costs more than it gains."""


@dataclass(frozen=True)
class ProductTile:
    """`rows x columns` of the result by a team, `thread_rows x thread_columns` by a thread, in steps of `depth`."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int
    efficiency: float
    """Share of the multiply-adds of a multiprocessor that such a tile reaches."""

    @property
    def threads(self) -> int:
        return self.rows // self.thread_rows * (self.columns // self.thread_columns)


TILES = (
    ProductTile(128, 128, 8, 8, 8, 0.75),
    ProductTile(64, 64, 16, 4, 4, 0.5),
    ProductTile(32, 64, 16, 4, 4, 0.4),
    ProductTile(32, 32, 32, 2, 4, 0.3),
    ProductTile(16, 64, 32, 2, 4, 0.25),
    ProductTile(8, 128, 16, 2, 4, 0.2),
)


def choose_tile(batch: int, rows: int, columns: int, depth: int) -> ProductTile:
    """The tile with the shortest estimated time."""
    return min(TILES, key=lambda tile: _time(tile, batch, rows, columns, depth))


def parts_of(tile: ProductTile, rows: int, columns: int, depth: int) -> int:
    """Into how many parts, none of them empty, the depth is cut so that every multiprocessor has a tile."""
    tiles, steps = -(-rows // tile.rows) * -(-columns // tile.columns), -(-depth // tile.depth)
    most = max(min(MOST_PARTS, steps // LEAST_STEPS), 1)
    parts = min(max(MULTIPROCESSORS // tiles, 1), most)
    return -(-steps // -(-steps // parts))


def _time(tile: ProductTile, batch: int, rows: int, columns: int, depth: int) -> float:
    tiles = batch * -(-rows // tile.rows) * -(-columns // tile.columns)
    parts = parts_of(tile, batch * rows, columns, depth)
    rounds = math.ceil(tiles * parts / MULTIPROCESSORS)
    return rounds * tile.rows * tile.columns * (depth / parts) / tile.efficiency

"""Which tile a team computes on multiply-add units, and how the depth is cut, by a model of what multiprocessors do at once."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.backends.cuda.builder import WARP
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_tiles import FLOAT, Chip

MULTIPROCESSORS = 108
"""Of the smallest GPU that kernels are made for with full tiles (A100); an H100 has 132."""

MOST_PARTS = 16

LEAST_STEPS = 4
"""Of a part of the depth, below which adding up parts costs more than it gains."""

PADDING = 4
"""Elements between rows of a tile in shared memory, so that its columns lie in different banks."""

STATIC = 48 << 10
"""Bytes of shared memory that a team has without asking for more."""

MULTIPLY_ADDS = 128
"""Of a multiprocessor in a cycle."""

START = 4500
"""Cycles of a kernel besides its products."""

HIDING = 1.3
"""Warps of a multiprocessor with which half of the time is spent waiting."""

BYTES = 13
"""Of sums of parts that a multiprocessor writes and reads in a cycle."""


@dataclass(frozen=True)
class ProductTile:
    """`rows x columns` of the result by a team, `thread_rows x thread_columns` by a thread, in steps of `depth`, of which `stages` lie
    in shared memory."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int
    stages: int
    efficiency: float
    """Share of the multiply-adds of a multiprocessor that many such teams reach."""

    @property
    def threads(self) -> int:
        return self.rows // self.thread_rows * (self.columns // self.thread_columns)

    @property
    def registers(self) -> int:
        """Of a thread, roughly."""
        return self.thread_rows * self.thread_columns + 64

    def shared(self, size: int = FLOAT) -> int:
        """Bytes of shared memory, for elements of `size` bytes."""
        return self.stages * self.depth * (self.rows + self.columns + 2 * PADDING) * size


TILES = (
    ProductTile(128, 128, 16, 8, 8, 2, 0.73),
    ProductTile(64, 128, 16, 8, 8, 2, 0.71),
    ProductTile(128, 64, 16, 8, 8, 2, 0.71),
    ProductTile(64, 64, 16, 8, 8, 2, 0.69),
    ProductTile(64, 64, 16, 8, 4, 3, 0.63),
    ProductTile(32, 64, 16, 8, 4, 3, 0.60),
    ProductTile(32, 32, 16, 2, 4, 3, 0.31),
    ProductTile(16, 64, 16, 2, 4, 3, 0.29),
    ProductTile(8, 128, 16, 2, 4, 3, 0.25),
)
"""Efficiencies, and the constants above, are fitted to 204 kernels of 16 products and convolutions on an H100, whose times they give
within 8 % (root mean square)."""


def choose_tile(chip: Chip, extents: Extents, size: int = FLOAT) -> tuple[ProductTile, int]:
    """The tile, and into how many parts the depth is cut, with the shortest estimated time for elements of `size` bytes."""
    tiles = [tile for tile in TILES if tile.shared(size) <= STATIC]
    choices = [(tile, parts) for tile in tiles for parts in depth_parts(tile, extents.depth)]
    return min(choices, key=lambda choice: estimated_cycles(chip, extents, *choice))


def shortest_cycles(chip: Chip, extents: Extents) -> float:
    """The estimated time of float32 with that tile."""
    return estimated_cycles(chip, extents, *choose_tile(chip, extents))


def depth_parts(tile: ProductTile, depth: int) -> list[int]:
    """Into how many parts, none of them empty, the depth can be cut."""
    steps = -(-depth // tile.depth)
    most = max(min(MOST_PARTS, steps // LEAST_STEPS), 1)
    return sorted({-(-steps // -(-steps // parts)) for parts in range(1, most + 1)})


def estimated_cycles(chip: Chip, extents: Extents, tile: ProductTile, parts: int) -> float:
    """Of the kernels of one product."""
    tiles = extents.batch * -(-extents.rows // tile.rows) * -(-extents.columns // tile.columns) * parts
    steps = -(-extents.depth // tile.depth)
    work = tile.rows * tile.columns * -(-steps // parts) * tile.depth / MULTIPLY_ADDS
    room = _room(chip, tile)
    full, rest = divmod(-(-tiles // chip.multiprocessors), room)
    time = START + work * (full * room / _rate(tile, room) + (rest / _rate(tile, rest) if rest else 0.0))
    if parts == 1:
        return time
    return time + (parts + 1) * extents.results * FLOAT / (BYTES * chip.multiprocessors)


def _room(chip: Chip, tile: ProductTile) -> int:
    """Teams that a multiprocessor has at once."""
    return min(
        chip.shared // (tile.shared() + 1024),
        chip.threads // tile.threads,
        chip.registers // (tile.threads * tile.registers),
    )


def _rate(tile: ProductTile, teams: int) -> float:
    """Share of the multiply-adds of a multiprocessor that so many teams reach together."""
    warps = teams * tile.threads / WARP
    return tile.efficiency * warps / (warps + HIDING)

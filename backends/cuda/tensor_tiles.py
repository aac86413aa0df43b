"""Which tile a team computes on tensor cores, and how the depth is cut, by a model of what multiprocessors do in rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphopt.backends.cuda.builder import WARP
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_elements import ROW
from graphopt.backends.kernels.core import GPU_HOPPER, Core

GROUP = 4 * WARP
"""Threads that multiply together on Hopper: a warpgroup, of 64 rows."""

GROUP_ROWS = 64

FLOAT = 4
"""Bytes of a sum."""

PADDING = 8
"""Sums between rows of results in shared memory, so that fragments of neighbouring rows lie in different banks."""


@dataclass(frozen=True)
class TensorTile:
    """`rows x columns` of a result by a team, of which every warp, or every group of warps where `warp_rows` is 64 and
    `warp_columns` is 0, has a part; `stages` steps lie in shared memory."""

    rows: int
    columns: int
    stages: int
    warp_rows: int = GROUP_ROWS
    warp_columns: int = 0

    @property
    def by_groups(self) -> bool:
        return self.warp_columns == 0

    @property
    def threads(self) -> int:
        if self.by_groups:
            return self.rows // GROUP_ROWS * GROUP
        return WARP * (self.rows // self.warp_rows) * (self.columns // self.warp_columns)

    @property
    def ahead(self) -> int:
        """Steps that are on their way while one is multiplied. A group still multiplies the step before."""
        return self.stages - 2 if self.by_groups else self.stages - 1

    @property
    def shared(self) -> int:
        """Bytes of shared memory: operands, then sums."""
        operands = self.stages * (self.rows + self.columns) * ROW
        return max(operands, self.rows * (self.columns + PADDING) * FLOAT)

    @property
    def registers(self) -> int:
        """Of a thread, roughly."""
        return min(self.rows * self.columns // self.threads + 64, 255)


@dataclass(frozen=True)
class Chip:
    """What a multiprocessor does in a cycle."""

    tiles: tuple[TensorTile, ...]
    multiprocessors: int
    products: int
    """Bytes of operands: twice the multiply-adds of halves, four times those of tf32."""
    bytes: int
    """From the second-level cache."""
    shared: int
    latency: int = 1000
    """Cycles until copies arrive."""
    start: int = 2500
    """Cycles of a kernel besides its steps."""
    registers: int = 65536
    threads: int = 2048


WARPS = (
    TensorTile(128, 128, 3, 64, 32),
    TensorTile(128, 64, 3, 64, 32),
    TensorTile(64, 64, 4, 32, 32),
)
"""Tiles of warps, from the most to the least work for a byte that is copied."""

GROUPS = (
    TensorTile(128, 256, 4),
    TensorTile(128, 128, 4),
    TensorTile(128, 128, 3),
    TensorTile(128, 64, 4),
    TensorTile(64, 128, 4),
    TensorTile(64, 64, 8),
    TensorTile(64, 64, 5),
    TensorTile(64, 32, 8),
)
"""Tiles of groups of warps."""

AMPERE = Chip(WARPS, 108, 2048, 36, 99 << 10)
"""As little of everything as there is in a GPU of this or a later generation: the shared memory is that of sm_86."""

HOPPER = Chip(GROUPS, 132, 4096, 60, 227 << 10)

HOPPER_WARPS = replace(HOPPER, tiles=WARPS, products=2048)
"""For operands that groups of warps do not read: those whose columns are neighbours in memory."""

MOST_PARTS = 8

ADDING = 4000
"""Cycles of a second kernel that adds up parts, besides those for the sums themselves."""


def chip_of(core: Core, along_depth: bool = True) -> Chip:
    """The chip for products whose right operand lies along the depth, or along columns."""
    if core != GPU_HOPPER:
        return AMPERE
    return HOPPER if along_depth else HOPPER_WARPS


def choose_tensor_tile(chip: Chip, extents: Extents, size: int) -> tuple[TensorTile, int]:
    """The tile, and into how many parts the depth is cut, with the shortest estimated time for elements of `size` bytes."""
    choices = [(tile, part) for tile in chip.tiles for part in depth_parts(extents, size)]
    return min(choices, key=lambda choice: estimated_cycles(chip, extents, size, *choice))


def depth_parts(extents: Extents, size: int, most: int = MOST_PARTS) -> list[int]:
    """Into how many parts, none of them empty, a depth of elements of `size` bytes can be cut."""
    steps = depth_steps(extents, size)
    return sorted({-(-steps // -(-steps // part)) for part in range(1, min(most, steps) + 1)})


def depth_steps(extents: Extents, size: int) -> int:
    """Steps of the whole depth."""
    return -(-extents.depth * size // ROW)


def estimated_cycles(chip: Chip, extents: Extents, size: int, tile: TensorTile, parts: int) -> float:
    """Of the kernels of one product."""
    steps = -(-depth_steps(extents, size) // parts)
    tiles = extents.batch * -(-extents.rows // tile.rows) * -(-extents.columns // tile.columns) * parts
    room = min(
        chip.shared // (tile.shared + 1024),
        chip.threads // tile.threads,
        chip.registers // (tile.threads * tile.registers),
    )
    teams = min(max(room, 1), -(-tiles // chip.multiprocessors))
    products = tile.rows * tile.columns * ROW / chip.products
    copies = (tile.rows + tile.columns) * ROW / chip.bytes
    step = max(teams * max(products, copies), chip.latency / tile.ahead)
    rounds = math.ceil(tiles / (chip.multiprocessors * teams))
    results = tile.rows * tile.columns * teams / 32
    time = chip.start + rounds * (steps * step + chip.latency + results)
    if parts == 1:
        return time
    return time + ADDING + parts * extents.results * 2 * FLOAT / (chip.bytes * chip.multiprocessors)

"""Which tile a team computes on tensor cores, and how the depth is cut, by a model of what multiprocessors do in rounds."""

from __future__ import annotations

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


PAIR = 2

CLUSTERS = (PAIR, 4, 8)
"""Teams that can see each other's shared memory: more are not sure to fit, and rows of all tiles are a multiple of them."""


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
    def traffic(self) -> int:
        """Bytes of shared memory that a step writes, and that its warps or groups read, each what it multiplies."""
        across = 1 if self.by_groups else self.columns // self.warp_columns
        readers = self.rows // self.warp_rows * across
        read = readers * (self.warp_rows + self.columns // across)
        return (self.rows + self.columns + read) * ROW

    def is_clustered(self, parts: int) -> bool:
        """Whether the teams of so many parts of the depth form a cluster, and add up their sums without another kernel."""
        return self.by_groups and parts in CLUSTERS

    @property
    def registers(self) -> int:
        """Of a thread, roughly."""
        return min(self.rows * self.columns // self.threads + 40, 255)


@dataclass(frozen=True)
class Chip:
    """What a multiprocessor does in a cycle. Numbers are of whole kernels, fitted to what they take, and less than a chip's best;
    those of clusters are guesses, as the search that was fitted to had none."""

    tiles: tuple[TensorTile, ...]
    multiprocessors: int
    products: int
    """Bytes of operands: twice the multiply-adds of halves, four times those of tf32."""
    shared: int
    """Bytes of shared memory."""
    traffic: int = 115
    """Bytes of shared memory that are written or read."""
    latency: int = 1200
    """Cycles until copies arrive."""
    fill: int = 1500
    """Cycles of a tile until the first products, and after the last result."""
    start: int = 5700
    """Cycles of a kernel besides its tiles."""
    results: int = 9
    result: int = 10
    """Cycles of a thread for each of its results, besides those of the multiprocessor."""
    adding: int = 3800
    """Cycles of a second kernel that adds up parts, besides those for the sums themselves."""
    sums: int = 33
    """Bytes of parts that it adds up."""
    moved: int = 12
    """Bytes that a copy reads from memory, or writes: 2.9 TB/s of an H100, and as much for each cycle of an A100."""
    clustered: int = 112
    """Multiprocessors on which clusters of more than two teams find room: those of a cluster are neighbours."""
    meeting: int = 2500
    """Cycles in which a cluster comes together, before it adds up parts and after."""
    peers: int = 20
    """Bytes of parts that come from the shared memory of others."""
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
    TensorTile(256, 128, 4),
    TensorTile(128, 192, 5),
    TensorTile(128, 128, 4),
    TensorTile(128, 128, 3),
    TensorTile(128, 96, 8),
    TensorTile(256, 64, 5),
    TensorTile(128, 64, 8),
    TensorTile(128, 64, 4),
    TensorTile(64, 128, 8),
    TensorTile(64, 128, 3),
    TensorTile(64, 96, 8),
    TensorTile(128, 32, 5),
    TensorTile(64, 64, 8),
    TensorTile(64, 64, 4),
    TensorTile(64, 32, 8),
)
"""Tiles of groups of warps, in the same order: of those that seem equally fast the first is taken."""

AMPERE = Chip(WARPS, 108, 1650, 99 << 10)
"""As little of everything as there is in a GPU of this or a later generation: the shared memory is that of sm_86."""

HOPPER = Chip(GROUPS, 132, 3300, 227 << 10)

HOPPER_WARPS = replace(HOPPER, tiles=WARPS, products=1650)
"""For operands that groups of warps do not read: those whose columns are neighbours in memory."""

MOST_PARTS = 8


def chip_of(core: Core, along_depth: bool = True) -> Chip:
    """The chip for products whose right operand lies along the depth, or along columns."""
    if core != GPU_HOPPER:
        return AMPERE
    return HOPPER if along_depth else HOPPER_WARPS


def choose_tensor_tile(chip: Chip, extents: Extents, size: int) -> tuple[TensorTile, int]:
    """The tile, and into how many parts the depth is cut, with the shortest estimated time for elements of `size` bytes."""
    choices = [(tile, part) for tile in chip.tiles for part in depth_parts(extents, size)]
    return min(choices, key=lambda choice: estimated_cycles(chip, extents, size, *choice))


def shortest_cycles(chip: Chip, extents: Extents, size: int) -> float:
    """The estimated time with that tile."""
    return estimated_cycles(chip, extents, size, *choose_tensor_tile(chip, extents, size))


def copy_cycles(chip: Chip, size: int) -> float:
    """Of a kernel that copies so many bytes."""
    return chip.adding + 2 * size / (chip.moved * chip.multiprocessors)


def depth_parts(extents: Extents, size: int, most: int = MOST_PARTS) -> list[int]:
    """Into how many parts, none of them empty, a depth of elements of `size` bytes can be cut."""
    steps = depth_steps(extents, size)
    return sorted({-(-steps // -(-steps // part)) for part in range(1, min(most, steps) + 1)})


def depth_steps(extents: Extents, size: int) -> int:
    """Steps of the whole depth."""
    return -(-extents.depth * size // ROW)


def estimated_cycles(chip: Chip, extents: Extents, size: int, tile: TensorTile, parts: int) -> float:
    """Of the kernels of one product: those of the multiprocessor with the most tiles, which has as many at once as it has room for."""
    steps = -(-depth_steps(extents, size) // parts)
    tiles = extents.batch * -(-extents.rows // tile.rows) * -(-extents.columns // tile.columns) * parts
    crowded = tile.is_clustered(parts) and parts > PAIR
    most = -(-tiles // (chip.clustered if crowded else chip.multiprocessors))
    room = _room(chip, tile)
    rounds, rest = divmod(most, room)
    time = chip.start + rounds * _round_cycles(chip, tile, steps, room)
    if rest:
        time += _round_cycles(chip, tile, steps, rest)
    if parts == 1:
        return time
    if tile.is_clustered(parts):
        return time + chip.meeting + (parts - 1) / parts * tile.rows * tile.columns * FLOAT / chip.peers
    return time + chip.adding + parts * extents.results * 2 * FLOAT / (chip.sums * chip.multiprocessors)


def _room(chip: Chip, tile: TensorTile) -> int:
    """How many teams share a multiprocessor at most."""
    room = min(
        chip.shared // (tile.shared + 1024),
        chip.threads // tile.threads,
        chip.registers // (tile.threads * tile.registers),
    )
    return max(room, 1)


def _round_cycles(chip: Chip, tile: TensorTile, steps: int, teams: int) -> float:
    """From the first copies of teams that work at once to their results. What their steps lack is asked for a few steps ahead."""
    products = tile.rows * tile.columns * ROW / chip.products
    step = max(teams * max(products, tile.traffic / chip.traffic), chip.latency / tile.ahead)
    results = tile.rows * tile.columns
    after = teams * results / chip.results + results / tile.threads * chip.result
    return chip.fill + steps * step + after

"""All tiles worth measuring of products on tensor cores. Rules choose among the few of `tensor_tiles`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from graphopt.backends.cuda.builder import WARP
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_elements import CHUNKS, ROW
from graphopt.backends.cuda.tensor_tiles import (
    GROUP_ROWS,
    HOPPER_WARPS,
    Chip,
    TensorTile,
    chip_of,
    choose_tensor_tile,
    depth_parts,
    estimated_cycles,
)
from graphopt.backends.kernels.core import Core

GROUPS_OF_ROWS = (64, 128, 192, 256)
COLUMNS = (32, 48, 64, 80, 96, 128, 144, 192, 256)
"""Of tiles of groups of warps."""

WARP_TILES = ((16, 32), (32, 32), (64, 32), (32, 64), (64, 64))
WARPS_DOWN, WARPS_ACROSS = (1, 2, 4), (1, 2, 4)
"""What a warp computes, and how many of them a tile has."""

FEWEST_THREADS, MOST_THREADS = 64, 256
"""Of tiles of warps; more leave too few registers for each."""

TEAMS = (1, 2, 3, 4)
"""Teams that share a multiprocessor: a tile has as many stages as fit for so many."""

MOST_STAGES = 8

PARTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Of the depth."""

BLOCK = 64
"""Columns of a block where chunks lie along columns."""

Choice = tuple[float, TensorTile, int]
"""Estimated cycles, tile, parts of the depth."""


def choices(core: Core, extents: Extents, size: int, along_depth: bool) -> list[Choice]:
    """That of the rules, then the best of each shape of tiles, then the others, from the shortest to the longest estimated time."""
    chip = chip_of(core, along_depth)
    rule = choose_tensor_tile(chip, extents, size)
    parts = [part for part in depth_parts(extents, size, max(PARTS)) if part in PARTS]
    found = [
        (estimated_cycles(seen, extents, size, tile, part), tile, part)
        for seen, tile in _tiles(chip, along_depth)
        for part in parts
        if (tile, part) != rule
    ]
    found.sort(key=lambda choice: choice[0])
    leaders: dict[tuple[int, int], Choice] = {}
    for choice in found:
        leaders.setdefault((choice[1].rows, choice[1].columns), choice)
    first, best = (estimated_cycles(chip, extents, size, *rule), *rule), list(leaders.values())
    return [first, *best, *(choice for choice in found if choice not in best)]


@cache
def _tiles(chip: Chip, along_depth: bool) -> list[tuple[Chip, TensorTile]]:
    """The tiles of a chip, those of the rules included, and the chip as each sees it. Where groups of warps multiply, tiles of
    warps have the fewer rows."""
    by_groups = any(tile.by_groups for tile in chip.tiles)
    made = {tile: chip for tile in chip.tiles}
    for tile in _groups() if by_groups else ():
        made |= dict.fromkeys(_with_stages(chip, tile, along_depth), chip)
    seen = HOPPER_WARPS if by_groups else chip
    for tile in _warps():
        if not by_groups or tile.rows < GROUP_ROWS:
            made |= dict.fromkeys(_with_stages(seen, tile, along_depth), seen)
    return [(seen, tile) for tile, seen in made.items()]


def _groups() -> Iterator[TensorTile]:
    for rows in GROUPS_OF_ROWS:
        for columns in COLUMNS:
            yield TensorTile(rows, columns, MOST_STAGES)


def _warps() -> Iterator[TensorTile]:
    for rows, columns in WARP_TILES:
        for down in WARPS_DOWN:
            for across in WARPS_ACROSS:
                if FEWEST_THREADS <= down * across * WARP <= MOST_THREADS:
                    yield TensorTile(down * rows, across * columns, MOST_STAGES, rows, columns)


def _with_stages(chip: Chip, tile: TensorTile, along_depth: bool) -> Iterator[TensorTile]:
    """The tile with as many stages as fit, if it is valid."""
    if not is_valid(chip, replace(tile, stages=3), along_depth):
        return
    stage = (tile.rows + tile.columns) * ROW
    for teams in TEAMS:
        stages = min((chip.shared // teams - 1024) // stage, MOST_STAGES)
        made = replace(tile, stages=stages)
        if made.ahead >= 1 and made.shared <= chip.shared // teams - 1024:
            yield made


def is_valid(chip: Chip, tile: TensorTile, along_depth: bool) -> bool:
    """Whether threads share copies of rows out evenly, columns that are neighbours are whole blocks, and all fits into memory and registers."""
    rows = tile.threads // CHUNKS
    if tile.shared > chip.shared or tile.threads * tile.registers > chip.registers or tile.rows % rows:
        return False
    return along_depth or _has_blocks(tile)


def _has_blocks(tile: TensorTile) -> bool:
    """Whether the columns are whole blocks, each row of which some threads copy."""
    across = tile.columns // CHUNKS
    return tile.columns % BLOCK == 0 and tile.threads % across == 0 and BLOCK % (tile.threads // across) == 0

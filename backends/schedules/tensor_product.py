"""Schedules of products on tensor cores of GPUs: the tile of a team, and into how many parts the depth is cut."""

from __future__ import annotations

from functools import cache

from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_space import choices
from graphopt.backends.cuda.tensor_tiles import TensorTile
from graphopt.backends.kernels.core import Core
from graphopt.backends.schedules.standalone import Standalone
from graphopt.backends.schedules.workload import Config, Workload

FAMILY = "tensor_product"


def workload(extents: Extents, size: int, along_depth: bool) -> Workload:
    """Of elements of `size` bytes; the right operand lies along the depth, or along columns."""
    return Workload.of(FAMILY, {**vars(extents), "size": size, "along_depth": int(along_depth)})


def extents_of(workload: Workload) -> Extents:
    """The extents of a workload."""
    return Extents(*(workload[name] for name in ("batch", "rows", "columns", "depth")))


@cache
def candidates(workload: Workload, core: Core) -> list[tuple[float, Config]]:
    """Estimated cycles and schedule: that of the rules, then the best of each shape of tiles, then the others, the fastest first."""
    return configs(core, extents_of(workload), workload["size"], bool(workload["along_depth"]))


def configs(core: Core, extents: Extents, size: int, along_depth: bool) -> list[tuple[float, Config]]:
    """The same of any product that is computed by tiles."""
    found = choices(core, extents, size, along_depth)
    return [(cycles, config_of(tile, parts)) for cycles, tile, parts in found]


def config_of(tile: TensorTile, parts: int) -> Config:
    """The schedule of a tile."""
    return {**vars(tile), "parts": parts}


def tile_of(config: Config) -> tuple[TensorTile, int]:
    """The tile of a schedule, and the parts of the depth."""
    *sides, parts = (
        int(config[name]) for name in ("rows", "columns", "stages", "warp_rows", "warp_columns", "parts")
    )
    return TensorTile(*sides), parts


def standalone(workload: Workload, config: Config, core: Core) -> Standalone:
    """A program of the kernel alone."""
    from graphopt.backends.cuda.standalone import product

    return product(workload, config, core)

"""Which arithmetic of bytes a core has, and what packing needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from graphopt.backends.kernels.core import Core, Dot, MatrixDot
from graphopt.backends.kernels.gemm import GemmTile, choose_tile
from graphopt.backends.kernels.octets import Octets
from graphopt.backends.kernels.quads import Quads
from graphopt.backends.kernels.tile_cost import SUPPLIES
from graphopt.backends.kernels.units import UnitArithmetic


class ByteArithmetic(UnitArithmetic, Protocol):
    """That of bytes."""

    @property
    def moved(self) -> int:
        """What is added to activations."""


ARITHMETICS: Mapping[type[Dot], type[Quads | Octets]] = {Dot: Quads, MatrixDot: Octets}


def byte_arithmetic(core: Core, dtype: str) -> Quads | Octets:
    """That of a core with an instruction for bytes, for activations of `dtype`."""
    assert core.dot is not None
    return ARITHMETICS[type(core.dot)].of(core, dtype)


def product_tile(rows: int, columns: int, steps: int, core: Core) -> GemmTile:
    """The tile of a product of bytes, of as many rows as the instruction takes or a multiple of that."""
    assert core.dot is not None
    tile = choose_tile(rows, columns, steps, replace(core, scalars=core.dot.rows))
    return replace(tile, rows=SUPPLIES[core.dot.rows].products(1, tile.rows))


def convolutions_core(core: Core) -> Core:
    """The core as tiles of convolutions of bytes see it."""
    assert core.dot is not None
    return replace(core, scalars=core.dot.pixels)

"""Which arithmetic of bytes a core has, and what packing needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from graphopt.backends.kernels.core import Core, Dot, MatrixDot
from graphopt.backends.kernels.octets import Octets
from graphopt.backends.kernels.quads import Quads
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


def products_core(core: Core) -> Core:
    """The core as tiles of products of bytes see it."""
    assert core.dot is not None
    return replace(core, scalars=core.dot.rows)


def convolutions_core(core: Core) -> Core:
    """The core as tiles of convolutions of bytes see it."""
    assert core.dot is not None
    return replace(core, scalars=core.dot.pixels)

"""Scalars that multiply vectors: broadcast from memory, or taken out of a lane of a register."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr

Scalar = Callable[[int], Expr]
"""Gives a scalar as a vector of so many equal lanes."""


def lane_of(vector: Expr, lane: int, width: int) -> Expr:
    """Lane `lane` of a vector, `width` times. LLVM multiplies by it in place: `fmla v0.4s, v1.4s, v2.s[lane]`."""
    copies = -(-width // vector.ty.dtype.lanes)
    return tirx.Shuffle([vector] * copies, [lane] * width)


@dataclass(frozen=True)
class Run:
    """`extent` neighbours from `start`, read at once for the sake of some `places` among them."""

    start: int
    extent: int
    places: list[int]


def runs(places: Sequence[int], most: int) -> Iterator[Run]:
    """Runs of a power of two of at most `most` neighbours that hold ascending places and reach beyond none of them."""
    first, last = places[0], places[-1]
    extent = min(most, 1 << (last - first + 1).bit_length() - 1)
    rest = list(places)
    while rest:
        start = min(rest[0], last - extent + 1)
        held = [place for place in rest if place < start + extent]
        rest = rest[len(held) :]
        yield Run(start, extent, held)

"""Transposes a square block that is held in vector registers."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder


def transpose_block(k: KernelBuilder, rows: Sequence[Expr]) -> list[Expr]:
    """The columns of a block of as many rows as each has lanes, a power of two: halves are exchanged between pairs of
    rows, at a distance that doubles each time."""
    lanes = len(rows)
    current = list(rows)
    distance = 1
    while distance < lanes:
        exchanged = list(current)
        for row in range(lanes):
            if row & distance == 0:
                low, high = current[row], current[row + distance]
                exchanged[row] = k.bind(_exchange(low, high, lanes, distance, 0))
                exchanged[row + distance] = k.bind(_exchange(low, high, lanes, distance, distance))
        current = exchanged
        distance *= 2
    return current


def _exchange(low: Expr, high: Expr, lanes: int, distance: int, keep: int) -> Expr:
    """Lanes whose `distance` bit equals that of `keep` come from both rows: the low row's stay or move down."""
    indices = []
    for lane in range(lanes):
        source = (lane & ~distance) | keep
        indices.append(source if lane & distance == 0 else source + lanes)
    return tirx.Shuffle([low, high], [tirx.const(index, "int32") for index in indices])

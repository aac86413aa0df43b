"""How many neighbouring results of a row a thread computes, which share inputs."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.backends.kernels.geometry import Axis

STRIDED = (2,)
"""Where windows are strided, which share fewer inputs."""

ENOUGH = 65536
"""Threads that a GPU needs to have enough reads under way."""

SHORTEST = 8
"""Channels of a run, where those are counted that are left."""


def pixel_counts(row: Axis, results: int, counts: Sequence[int]) -> list[int]:
    """Those of `counts` that rows are whole numbers of, and which leave enough threads for so many results of all rows; then one."""
    wanted = counts if row.stride == 1 else STRIDED
    return [*(each for each in wanted if row.output % each == 0 and results >= ENOUGH * SHORTEST * each), 1]

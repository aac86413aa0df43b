"""How many neighbouring results a thread computes, which share inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.backends.kernels.geometry import Axis

Block = tuple[int, int]
"""Rows, and pixels of each."""

STRIDED: tuple[Block, ...] = ((1, 2),)
"""Where windows are strided, which share fewer inputs."""

ENOUGH = 65536
"""Threads that a GPU needs to have enough reads under way."""

SHORTEST = 8
"""Channels of a run, where those are counted that are left."""


def suitable_blocks(axes: Sequence[Axis], channels: int, blocks: Sequence[Block]) -> list[Block]:
    """Those of `blocks` that images are whole numbers of, and which leave enough threads for so many `channels` of all images; then
    single pixels."""
    *outer, last = axes
    results = channels * math.prod(axis.output for axis in axes)

    def suits(rows: int, pixels: int) -> bool:
        whole = last.output % pixels == 0 and (rows == 1 or (len(outer) == 1 and outer[0].output % rows == 0))
        return whole and results >= ENOUGH * SHORTEST * rows * pixels

    wanted = blocks if last.stride == 1 else STRIDED
    return [*(each for each in wanted if suits(*each)), (1, 1)]

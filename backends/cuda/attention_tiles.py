"""How a team shares out the rows and keys of an attention, and what suits a chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.backends.cuda.builder import WARP
from graphopt.backends.cuda.tensor_tiles import GROUP_ROWS
from graphopt.backends.kernels.core import GPU_HOPPER, Core

ROWS, COLUMNS, DEPTH = 16, 8, 16
"""Of one instruction of a warp."""

ROW = 64
"""Halves of a row in shared memory."""

LONGEST_STEP = 128
"""Keys that a warp multiplies at a time."""

FEW_TILES = 300
"""Of 16 queries, for which there are more warps than that at a time."""


@dataclass(frozen=True)
class AttentionTile:
    """`warps` with 16 queries each, times `parts` that share the keys; `step` keys at a time of each part.

    Of `stages` super-steps of `parts * step` keys, keys and values are in shared memory or on their way there. Warps multiply by
    themselves, or `by_groups` of four."""

    warps: int
    parts: int
    step: int
    stages: int
    by_groups: bool = False

    @property
    def threads(self) -> int:
        return self.warps * self.parts * WARP

    @property
    def rows(self) -> int:
        return self.warps * ROWS

    @property
    def keys(self) -> int:
        return self.parts * self.step


def choose_attention_tile(core: Core, shape: Sequence[int], size: int, value_size: int) -> AttentionTile:
    """For `shape` of batch, heads, queries and keys."""
    batch, heads, queries, keys = shape
    cuts = -(-keys // LONGEST_STEP)
    step = -(-keys // (cuts * DEPTH)) * DEPTH
    tiles = batch * heads * -(-queries // ROWS)
    if tiles < FEW_TILES:
        return AttentionTile(2, 4, -(-step // 64) * 16, min(2, cuts))
    if core is GPU_HOPPER:
        return AttentionTile(8 if queries > GROUP_ROWS else 4, 1, step, min(2, cuts), True)
    return AttentionTile(4, 1, 64, min(2, -(-keys // 64)))

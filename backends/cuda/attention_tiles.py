"""How a team shares out the rows and keys of an attention, and what suits a chip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphopt.backends.cuda.builder import WARP
from graphopt.backends.cuda.tensor_tiles import AMPERE, FLOAT, GROUP_ROWS, PADDING
from graphopt.backends.kernels.core import GPU_HOPPER, Core

ROWS, COLUMNS, DEPTH = 16, 8, 16
"""Of one instruction of a warp."""

ROW = 64
"""Halves of a row in shared memory."""

MULTIPROCESSORS = 132
"""Of an H100; fewer on other chips, where some rounds are not full."""

MOST_SCORES = 272
"""Keys of a step, and elements of a value, that a thread of a group has registers for."""

STEP = 64
"""Keys at a time where they are many."""

PARTS = 4
"""Of the keys where queries are few."""


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

    def shared(self, size: int, value_size: int) -> int:
        """Bytes of shared memory: operands, then results."""
        key, value = (2 * ROW * blocks_of(each) for each in (size, value_size))
        operands = self.stages * self.keys * (key + value) + self.rows * key
        return max(operands, FLOAT * self.parts * self.rows * (value_size + PADDING + 2))


def choose_attention_tile(core: Core, shape: Sequence[int], size: int, value_size: int) -> AttentionTile:
    """For `shape` of batch, heads, queries and keys: a warp for 16 queries and a quarter of the keys where they do not keep the chip
    busy otherwise; on Hopper groups, with all keys at once where registers hold their scores."""
    batch, heads, queries, keys = shape
    if batch * heads * -(-queries // ROWS) <= MULTIPROCESSORS:
        return next(tile for tile in _few_queries(keys) if tile.shared(size, value_size) <= AMPERE.shared)
    if core is not GPU_HOPPER:
        step = STEP if value_size <= ROW else STEP // 2
        return AttentionTile(4, 1, min(_padded(keys), step), min(2, -(-keys // step)))
    if _padded(keys) + value_size <= MOST_SCORES:
        return AttentionTile(4, 1, _padded(keys), 1, True)
    return AttentionTile(8 if queries > GROUP_ROWS else 4, 1, STEP, 2, True)


def _few_queries(keys: int) -> Iterator[AttentionTile]:
    """A warp for 16 of them, for as many keys at a time as possible first."""
    for step in range(min(_padded(-(-keys // PARTS)), STEP), 0, -DEPTH):
        yield AttentionTile(1, PARTS, step, min(2, -(-keys // (PARTS * step))))


def blocks_of(size: int) -> int:
    """Blocks of 64 halves in shared memory."""
    return -(-size // ROW)


def _padded(keys: int) -> int:
    """In whole depths of an instruction."""
    return -(-keys // DEPTH) * DEPTH

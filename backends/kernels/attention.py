"""Attention as one kernel: a few queries at a time, whose scores stay in the cache and are never written to memory.

`softmax(masked(queries x keys)) x values`, where a softmax row is complete before it is used: unlike in Dao et al. 2022,
FlashAttention, nothing needs to be rescaled, since a row of scores is far smaller than a core's second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import (
    PARALLEL_MACS,
    GemmKernel,
    GemmTile,
    Store,
    choose_tile,
    for_each_segment,
    segments,
)
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.rows import MAXIMUM, SUM, Row, padded
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.tensor import Index, Tensor, lazy

LEAST_ROWS = 12
"""Queries at a time: keys and values come from the second-level cache once for each."""

MOST_SCORES = 1 << 15
"""Scores at a time, which lie on the stack of a task: 128 KiB."""

Change = Callable[[KernelBuilder, Index, Expr], Expr]
"""What becomes of an element, given its index `[batch..., query, key]`."""


@dataclass(frozen=True)
class AttentionTiles:
    """Queries that a unit of work handles, and the register tiles of its two products."""

    rows: int
    scores: GemmTile
    results: GemmTile


def choose_tiles(queries: int, keys: int, size: int, value_size: int, core: Core) -> AttentionTiles | None:
    """The tiles with the fewest estimated cycles, those of the results first; None where rows of scores are too long."""
    results = choose_tile(queries, value_size, keys, core)
    most = min(MOST_SCORES // padded(keys, core.lanes), queries)
    tiles_at_a_time = min(-(-LEAST_ROWS // results.rows), most // results.rows)
    if tiles_at_a_time < 1:
        return None
    rows = tiles_at_a_time * results.rows
    return AttentionTiles(rows, choose_tile(rows, keys, size, core), results)


@dataclass(frozen=True)
class AttentionKernel:
    """Emits attention in float32: queries `[batch..., m, d]`, keys `[batch..., d, n]`, values `[batch..., n, v]`.

    `mask` is applied to every score, `weigh` to every weight, and `store` gets the results `[batch..., m, v]`.
    """

    queries: Tensor
    keys: Tensor | Panels
    values: Tensor | Panels
    batch: tuple[int, ...]
    key_count: int
    value_size: int
    tiles: AttentionTiles
    core: Core
    mask: Change
    weigh: Change
    store: Store

    @property
    def lanes(self) -> int:
        return self.core.lanes

    @property
    def macs(self) -> int:
        *_, queries, size = self.queries.shape
        return math.prod(self.batch) * queries * self.key_count * (size + self.value_size)

    def emit(self, k: KernelBuilder) -> None:
        parts = segments(self.queries.shape[-2], self.tiles.rows)
        units = [math.prod(self.batch), sum(part.repeat for part in parts)]
        with k.loop(math.prod(units), loop_kind(self.macs, PARALLEL_MACS), "unit") as unit:
            which, part = (k.bind(index) for index in split_index(unit, units))
            prefix = [k.bind(index) for index in split_index(which, list(self.batch))]
            for_each_segment(k, parts, part, lambda p, y: self._rows(k, prefix, k.bind(y), p.extent))

    def _rows(self, k: KernelBuilder, prefix: list[Expr], y: Expr, rows: int) -> None:
        width = padded(self.key_count, self.lanes)
        scores = k.local(rows * width, "float32")
        self._score(k, scores, width, prefix, y, rows)
        with k.loop(rows, "serial", "row") as row:
            index = [*prefix, y + row]
            self._normalise(
                k, Row(k, self.key_count, "float32", self.lanes, scores, k.bind(row * width)), index
            )
        self._combine(k, scores, width, prefix, y, rows)

    def _score(
        self, k: KernelBuilder, scores: Local, width: int, prefix: list[Expr], y: Expr, rows: int
    ) -> None:
        def put(k: KernelBuilder, index: Index, value: Expr) -> None:
            k.assign(scores, (index[-2] - y) * width + index[-1], self.mask(k, index, value))

        shape = (*self.batch, self.queries.shape[-2], self.key_count)
        product = GemmKernel(self.queries, self.keys, shape, self.tiles.scores, self.core, "float32", put)
        product.emit_rows(k, prefix, y, rows)

    def _normalise(self, k: KernelBuilder, row: Row, index: list[Expr]) -> None:
        """Softmax of a row in its place."""
        row.pad(const(-math.inf, "float32"))
        peak = row.fold(MAXIMUM, lambda p: row[p])
        row.replace(lambda value: mathematics.exp(k, value - peak))
        scale = k.bind(const(1.0, "float32") / row.fold(SUM, lambda p: row[p]))
        row.each(lambda p, value: row.assign(p, self.weigh(k, [*index, p], value * scale)))

    def _combine(
        self, k: KernelBuilder, scores: Local, width: int, prefix: list[Expr], y: Expr, rows: int
    ) -> None:
        weights = lazy((rows, self.key_count), "float32", lambda k, at: scores[at[-2] * width + at[-1]])

        def put(k: KernelBuilder, index: Index, value: Expr) -> None:
            *before, row, column = index
            self.store(k, [*before, y + row, column], value)

        shape = (*self.batch, rows, self.value_size)
        product = GemmKernel(weights, self.values, shape, self.tiles.results, self.core, "float32", put)
        product.emit_rows(k, prefix, const(0, "int32"), rows)

"""Matrix multiplication `[batch..., m, k] x [batch..., k, n]` with a tile of the result held in registers.

The left operand is read one scalar at a time and may have any strides, or in vectors along k on cores that multiply by a lane;
the right one is read in vectors along n, either from packed panels or in place. A tile too small to hide the latency of a multiply-add is held several times over, each
copy summing its share of k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, Local, broadcast, cast, const
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.lanes import Scalar, lane_of
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.tile_cost import axis_cycles, fits, step_cycles
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import Tensor, broadcast_index

PARALLEL_MACS = 100_000
"""Multiply-adds below which a multiplication stays on one thread."""

MOST_VECTORS, MOST_ROWS = 8, 14

Store = Callable[[KernelBuilder, Sequence[Expr], Expr], None]
"""Stores one element of the product, given its index `[batch..., m, n]`."""


@dataclass(frozen=True)
class GemmTile:
    """`rows` of the result times `vectors` of columns."""

    rows: int
    vectors: int


def choose_tile(m: int, n: int, depth: int, core: Core) -> GemmTile:
    """The tile with the fewest estimated cycles over the whole result."""
    tiles = tiles_that_fit(m, n, core)
    return min(tiles, key=lambda tile: gemm_cycles(m, n, depth, tile, core), default=GemmTile(1, 1))


def tiles_that_fit(m: int, n: int, core: Core) -> Iterator[GemmTile]:
    """Those that fit into registers."""
    for vectors in range(1, min(-(-n // core.lanes), MOST_VECTORS) + 1):
        for rows in range(1, min(m, MOST_ROWS) + 1):
            if fits(vectors, rows, core):
                yield GemmTile(rows, vectors)


def gemm_cycles(m: int, n: int, depth: int, tile: GemmTile, core: Core) -> float:
    """Estimated cycles of a product on one core."""

    def of_rows(rows: int) -> float:
        return axis_cycles(
            -(-n // core.lanes), tile.vectors, lambda vectors: step_cycles(vectors, rows, depth, core)
        )

    return depth * axis_cycles(m, tile.rows, of_rows)


@dataclass(frozen=True)
class Segment:
    """`repeat` tiles of `extent` rows or columns from `start`."""

    start: int
    extent: int
    repeat: int


def segments(total: int, extent: int) -> list[Segment]:
    """Full tiles, then the remainder."""
    full, rest = divmod(total, extent)
    parts = [Segment(0, extent, full)] if full else []
    return [*parts, Segment(full * extent, rest, 1)] if rest else parts


@dataclass(frozen=True)
class Tile:
    """What is computed together: `sums` of `rows` rows from `y` and of the columns from `x`, which are in a panel; vectors have `widths` columns."""

    sums: Local
    prefix: list[Expr]
    y: Expr
    rows: int
    x: Expr
    widths: list[int]
    panel: Expr


@dataclass(frozen=True)
class GemmKernel:
    """Emits one multiplication of result `shape`. `right` is packed, or stored with its columns next to each other.

    `accumulator` is the dtype of the sums, of which a vector register holds `core.lanes`.
    """

    left: Tensor
    right: Tensor | Panels
    shape: tuple[int, ...]
    tile: GemmTile
    core: Core
    accumulator: str
    store: Store

    @property
    def lanes(self) -> int:
        return self.core.lanes

    @property
    def depth(self) -> int:
        return self.left.shape[-1]

    def emit(self, k: KernelBuilder) -> None:
        *batch, m, n = self.shape
        rows = segments(m, self.tile.rows)
        columns = segments(n, self.tile.vectors * self.lanes)
        units = [math.prod(batch), sum(c.repeat for c in columns), sum(r.repeat for r in rows)]
        macs = math.prod(self.shape) * self.depth
        with k.loop(math.prod(units), loop_kind(macs, PARALLEL_MACS), "unit") as unit:
            which, column, row = (k.bind(index) for index in split_index(unit, units))
            prefix = split_index(which, batch)
            for_each_segment(k, columns, column, lambda c, x: self._panel(k, rows, row, prefix, c, x, column))

    def emit_rows(self, k: KernelBuilder, prefix: list[Expr], y: Expr, rows: int) -> None:
        """`rows` rows of one product from `y`, all of their columns, on the calling thread."""
        width = self.tile.vectors * self.lanes
        for part in segments(self.shape[-1], width):
            with k.loop(part.repeat, "serial", "panel") as number:
                panel = k.bind(part.start // width + number)
                x = k.bind(part.start + number * part.extent)
                for tiles in segments(rows, self.tile.rows):
                    with k.loop(tiles.repeat, "serial", "tile") as tile:
                        first = k.bind(y + tiles.start + tile * tiles.extent)
                        self._tile(k, prefix, first, tiles.extent, x, part.extent, panel)

    def _panel(
        self,
        k: KernelBuilder,
        rows: Sequence[Segment],
        row: Expr,
        prefix: list[Expr],
        c: Segment,
        x: Expr,
        panel: Expr,
    ) -> None:
        for_each_segment(k, rows, row, lambda r, y: self._tile(k, prefix, y, r.extent, x, c.extent, panel))

    def _tile(
        self, k: KernelBuilder, prefix: list[Expr], y: Expr, rows: int, x: Expr, columns: int, panel: Expr
    ) -> None:
        widths = [min(self.lanes, columns - start) for start in range(0, columns, self.lanes)]
        vectors = self.held_rows(rows) * len(widths)
        copies = max(min(self.core.speed.in_flight // vectors, self.depth), 1)
        accumulators = k.local(copies * vectors * self.lanes, self.accumulator)
        zero = broadcast(const(0, self.accumulator), self.lanes)
        for vector in range(copies * vectors):
            k.assign(accumulators, vector * self.lanes, zero, self.lanes)
        tile = Tile(accumulators, prefix, y, rows, x, widths, panel)
        self.accumulate(k, tile, copies)
        self._add_copies(k, accumulators, copies, vectors)
        self._settle(k, tile)
        for row in range(rows):
            for v, width in enumerate(widths):
                at = (row * len(widths) + v) * self.lanes
                self._store(k, accumulators, at, width, prefix, y + row, x + v * self.lanes)

    def accumulate(self, k: KernelBuilder, tile: Tile, copies: int) -> None:
        """Add up all products of a tile; `copies` of its sums, one behind the other, take turns."""
        self.add_products(k, tile, copies, 0, self.depth)

    def add_products(self, k: KernelBuilder, tile: Tile, copies: int, start: Expr, count: int) -> None:
        """Those of `count` steps from `start`."""
        vectors = self.held_rows(tile.rows) * len(tile.widths)
        at_once = self.lanes if self.reads_along_depth else copies
        steps = count // at_once
        with k.loop(steps, "serial", "k") as step:
            first = start + step * at_once
            scalars = self.load_lanes(k, tile, first) if self.reads_along_depth else None
            for i in range(at_once):
                self.multiply(
                    k, tile, i % copies * vectors, first + i, None if scalars is None else scalars[i]
                )
        for rest in range(steps * at_once, count):
            depth = start + rest
            self.multiply(k, tile, 0, const(depth, INDEX) if isinstance(depth, int) else depth, None)

    @property
    def reads_along_depth(self) -> bool:
        """Whether vectors of the left operand hold the scalars of as many steps."""
        layout = self.left.storage.layout if self.left.storage is not None else None
        along = isinstance(layout, Strided) and layout.strides[-1] == 1 and self.depth >= self.lanes
        return self.core.by_lane and along and self.left.dtype == self.accumulator == "float32"

    def held_rows(self, rows: int) -> int:
        """Of how many rows there are sums, for a tile of `rows`."""
        return rows

    def _settle(self, k: KernelBuilder, tile: Tile) -> None:
        """Bring finished sums into the order of rows and columns."""

    def load_lanes(self, k: KernelBuilder, tile: Tile, depth: Expr) -> list[list[Scalar]]:
        """The scalars of as many steps as a vector has lanes, for each step those of all rows."""
        vectors = [
            k.bind(
                k.load_vector(
                    storage.buffer, storage.layout.position(self.left_index(tile, row, depth)), self.lanes
                )
            )
            for storage in [self.left.storage]
            if storage is not None
            for row in range(tile.rows)
        ]
        return [[partial(lane_of, vector, lane) for vector in vectors] for lane in range(self.lanes)]

    def left_index(self, tile: Tile, row: int, depth: Expr) -> list[Expr]:
        return [*broadcast_index(tile.prefix, self.left.shape[:-2]), tile.y + row, depth]

    def broadcast(self, k: KernelBuilder, tile: Tile, row: int, depth: Expr) -> Scalar:
        """An element of the left operand."""
        scalar = cast(self.left.reader(k, self.left_index(tile, row, depth)), self.accumulator)
        return lambda width: broadcast(scalar, width) if width > 1 else scalar

    def multiply(
        self, k: KernelBuilder, tile: Tile, first: int, depth: Expr, scalars: list[Scalar] | None
    ) -> None:
        """One step: the products of a column of the left operand and a row of the right one, added to the sums from `first`."""
        sums, widths = tile.sums, tile.widths
        right = [k.bind(self._right(k, tile, depth, v, width)) for v, width in enumerate(widths)]
        for row in range(tile.rows):
            scalar = self.broadcast(k, tile, row, depth) if scalars is None else scalars[row]
            for v, vector in enumerate(right):
                width = self.lanes if isinstance(self.right, Panels) else widths[v]
                at = (first + row * len(widths) + v) * self.lanes
                k.assign(sums, at, k.read_vector(sums, at, width) + vector * scalar(width), width)

    def _right(self, k: KernelBuilder, tile: Tile, depth: Expr, v: int, width: int) -> Expr:
        prefix = tile.prefix
        if isinstance(self.right, Panels):
            index = broadcast_index(prefix, self.right.batch)
            value = self.right.load(k, index, tile.panel, depth, v)
            width = self.lanes
        else:
            assert self.right.storage is not None
            layout = self.right.storage.layout
            assert isinstance(layout, Strided)
            position = [*broadcast_index(prefix, self.right.shape[:-2]), depth, tile.x + v * self.lanes]
            value = k.load_vector(self.right.storage.buffer, layout.position(position), width)
        return cast(value, self.accumulator if width == 1 else f"{self.accumulator}x{width}")

    def _add_copies(self, k: KernelBuilder, accumulators: Local, copies: int, vectors: int) -> None:
        for copy in range(1, copies):
            for vector in range(vectors):
                total, part = vector * self.lanes, (copy * vectors + vector) * self.lanes
                value = k.read_vector(accumulators, total, self.lanes) + k.read_vector(
                    accumulators, part, self.lanes
                )
                k.assign(accumulators, total, value, self.lanes)

    def _store(
        self, k: KernelBuilder, accumulators: Local, at: int, width: int, prefix: list[Expr], y: Expr, x: Expr
    ) -> None:
        with k.loop(width, "vector" if width > 1 else "serial", "lane") as lane:
            self.store(k, [*prefix, y, x + lane], accumulators[lane + at])


def for_each_segment(
    k: KernelBuilder, parts: Sequence[Segment], index: Expr, emit: Callable[[Segment, Expr], None]
) -> None:
    """Emit the code of tile number `index`: the full tiles, else the remainder."""

    def start(part: Segment) -> Expr:
        return const(part.start, INDEX) if part.repeat == 1 else part.start + index * part.extent

    if len(parts) == 1:
        emit(parts[0], start(parts[0]))
        return
    full, rest = parts
    k.switch([(index < full.repeat, lambda: emit(full, start(full)))], lambda: emit(rest, start(rest)))

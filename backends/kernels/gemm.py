"""Matrix multiplication `[batch..., m, k] x [batch..., k, n]` with a tile of the result held in registers.

The left operand is read one scalar at a time and may have any strides; the right one is read in vectors along n, either
from packed constant panels or in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.conv import REGISTERS
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import Storage, Tensor, broadcast_index

PARALLEL_MACS = 100_000
"""Multiply-adds below which a multiplication stays on one thread."""


@dataclass(frozen=True)
class GemmTile:
    """`rows` of the result times `vectors` of columns."""

    rows: int
    vectors: int


def choose_tile(m: int, n: int, lanes: int) -> GemmTile:
    """The tile with the fewest estimated cycles over the whole result."""
    best, best_cycles = GemmTile(1, 1), float("inf")
    total_vectors = -(-n // lanes)
    for vectors in range(1, min(total_vectors, 8) + 1):
        for rows in range(1, min(m, 14) + 1):
            if rows * vectors + min(rows, vectors) + 1 > REGISTERS[lanes]:
                continue
            cycles = _cycles(m, rows, total_vectors, vectors)
            if cycles < best_cycles * 0.999:
                best, best_cycles = GemmTile(rows, vectors), cycles
    return best


def _cycles(m: int, rows: int, total_vectors: int, vectors: int) -> float:
    def tile(r: int, v: int) -> float:
        return max(r * v / 2, (r + v) / 2, 4.0) if r and v else 0.0

    full_rows, rest_rows = divmod(m, rows)
    full, rest = divmod(total_vectors, vectors)
    return full * (full_rows * tile(rows, vectors) + tile(rest_rows, vectors)) + (
        full_rows * tile(rows, rest) + tile(rest_rows, rest)
    )


def pack_panels(matrix: np.ndarray[Any, Any], tile: GemmTile, lanes: int) -> np.ndarray[Any, Any]:
    """`[k, n]` to panels of `vectors * lanes` columns, `[panel, k, column]`, missing columns zero."""
    k, n = matrix.shape
    width = tile.vectors * lanes
    padded = np.zeros((k, -(-n // width) * width), matrix.dtype)
    padded[:, :n] = matrix
    return np.ascontiguousarray(padded.reshape(k, -1, width).transpose(1, 0, 2))


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
class GemmKernel:
    """Emits one multiplication. `panels` (packed from a constant `[k, n]`) replaces `right` when given."""

    left: Tensor
    right: Tensor
    panels: Buffer | None
    tile: GemmTile
    lanes: int
    epilogue: Epilogue
    out: Storage

    @property
    def batch(self) -> tuple[int, ...]:
        return self.epilogue.shape[:-2]

    def emit(self, k: KernelBuilder) -> None:
        m, n = self.epilogue.shape[-2:]
        depth = self.left.shape[-1]
        rows = segments(m, self.tile.rows)
        columns = segments(n, self.tile.vectors * self.lanes)
        units = [math.prod(self.batch), sum(c.repeat for c in columns), sum(r.repeat for r in rows)]
        macs = math.prod(self.batch) * m * n * depth
        with k.loop(math.prod(units), "parallel" if macs >= PARALLEL_MACS else "serial", "unit") as unit:
            batch, column, row = (k.bind(index) for index in split_index(unit, units))
            prefix = split_index(batch, self.batch)
            _for_each(k, columns, column, lambda c, x: self._panel(k, rows, row, prefix, c, x, column))

    def _panel(
        self, k: KernelBuilder, rows: Sequence[Segment], row: Expr, prefix: list[Expr], c: Segment, x: Expr, panel: Expr
    ) -> None:
        _for_each(k, rows, row, lambda r, y: self._tile(k, prefix, y, r.extent, x, c.extent, panel))

    def _tile(
        self, k: KernelBuilder, prefix: list[Expr], y: Expr, rows: int, x: Expr, columns: int, panel: Expr
    ) -> None:
        widths = [min(self.lanes, columns - start) for start in range(0, columns, self.lanes)]
        accumulators = k.local(rows * len(widths) * self.lanes, "float32")
        zero = tirx.Broadcast(tirx.const(0.0, "float32"), self.lanes)
        for vector in range(rows * len(widths)):
            k.assign(accumulators, vector * self.lanes, zero, self.lanes)
        with k.loop(self.left.shape[-1], "serial", "k") as depth:
            self._multiply(k, accumulators, prefix, y, rows, x, widths, panel, depth)
        for row in range(rows):
            for v, width in enumerate(widths):
                self._store(k, accumulators, (row * len(widths) + v) * self.lanes, width, prefix, y + row, x + v * self.lanes)

    def _multiply(
        self,
        k: KernelBuilder,
        accumulators: Local,
        prefix: list[Expr],
        y: Expr,
        rows: int,
        x: Expr,
        widths: list[int],
        panel: Expr,
        depth: Expr,
    ) -> None:
        right = [
            k.bind(self._right(k, prefix, depth, panel, v, x, width)) for v, width in enumerate(widths)
        ]
        for row in range(rows):
            scalar = self.left.reader(k, [*broadcast_index(prefix, self.left.shape[:-2]), y + row, depth])
            for v, vector in enumerate(right):
                width = self.lanes if self.panels is not None else widths[v]
                at = (row * len(widths) + v) * self.lanes
                product = vector * (tirx.Broadcast(scalar, width) if width > 1 else scalar)
                k.assign(accumulators, at, k.read_vector(accumulators, at, width) + product, width)

    def _right(
        self, k: KernelBuilder, prefix: list[Expr], depth: Expr, panel: Expr, v: int, x: Expr, width: int
    ) -> Expr:
        if self.panels is not None:
            offset = (panel * self.left.shape[-1] + depth) * self.tile.vectors + v
            return k.load_vector(self.panels, offset * self.lanes, self.lanes)
        assert self.right.storage is not None
        layout = self.right.storage.layout
        assert isinstance(layout, Strided)
        index = [*broadcast_index(prefix, self.right.shape[:-2]), depth, x + v * self.lanes]
        return k.load_vector(self.right.storage.buffer, layout.position(index), width)

    def _store(
        self, k: KernelBuilder, accumulators: Local, at: int, width: int, prefix: list[Expr], y: Expr, x: Expr
    ) -> None:
        with k.loop(width, "vector" if width > 1 else "serial", "lane") as lane:
            self.epilogue.store(k, self.out, [*prefix, y, x + lane], accumulators[lane + at])


def _for_each(
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

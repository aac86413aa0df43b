"""Products whose operands both lie along the summed axis: every result is a dot product of two contiguous rows.

Used where the result has too few columns to fill vectors with them, and where transposing an operand would cost more
than the product itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, Local, broadcast, cast, const
from graphopt.backends.kernels.gemm import PARALLEL_MACS, Segment, Store, for_each_segment, segments
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import Tensor, broadcast_index

TILE = 4
"""Rows, and columns, of the result computed together."""

IN_FLIGHT = 8
"""Vectors of partial sums that hide the latency of a multiply-add."""


@dataclass(frozen=True)
class DotKernel:
    """`left [batch..., m, k]` times `right [batch..., k, n]`, both stored with stride 1 along k."""

    left: Tensor
    right: Tensor
    shape: tuple[int, ...]
    lanes: int
    accumulator: str
    store: Store

    @property
    def depth(self) -> int:
        return self.left.shape[-1]

    def emit(self, k: KernelBuilder) -> None:
        *batch, m, n = self.shape
        rows, columns = segments(m, min(m, TILE)), segments(n, min(n, TILE))
        units = [math.prod(batch), sum(r.repeat for r in rows), sum(c.repeat for c in columns)]
        macs = math.prod(self.shape) * self.depth
        with k.loop(math.prod(units), loop_kind(macs, PARALLEL_MACS), "unit") as unit:
            which, row, column = (k.bind(index) for index in split_index(unit, units))
            prefix = split_index(which, batch)

            def row_tile(r: Segment, y: Expr) -> None:
                for_each_segment(
                    k, columns, column, lambda c, x: self._tile(k, prefix, y, r.extent, x, c.extent)
                )

            for_each_segment(k, rows, row, row_tile)

    def _tile(self, k: KernelBuilder, prefix: list[Expr], y: Expr, rows: int, x: Expr, columns: int) -> None:
        pairs = rows * columns
        copies = max(min(IN_FLIGHT // pairs, self.depth // self.lanes), 1)
        partial = k.local(copies * pairs * self.lanes, self.accumulator)
        zero = broadcast(const(0, self.accumulator), self.lanes)
        for vector in range(copies * pairs):
            k.assign(partial, vector * self.lanes, zero, self.lanes)
        step = copies * self.lanes
        if self.depth >= step:
            with k.loop(self.depth // step, "serial", "k") as outer:
                for copy in range(copies):
                    depth = outer * step + copy * self.lanes
                    self._multiply(k, partial, copy * pairs, prefix, y, rows, x, columns, depth, self.lanes)
        for depth in range(self.depth // step * step, self.depth, self.lanes):
            width = min(self.lanes, self.depth - depth)
            self._multiply(k, partial, 0, prefix, y, rows, x, columns, const(depth, INDEX), width)
        for row in range(rows):
            for column in range(columns):
                pair = row * columns + column
                value = self._total(
                    k, partial, [(copy * pairs + pair) * self.lanes for copy in range(copies)]
                )
                self.store(k, [*prefix, y + row, x + column], value)

    def _multiply(
        self,
        k: KernelBuilder,
        partial: Local,
        first: int,
        prefix: list[Expr],
        y: Expr,
        rows: int,
        x: Expr,
        columns: int,
        depth: Expr,
        width: int,
    ) -> None:
        lefts = [self._load(k, self.left, prefix, [y + row, depth], width) for row in range(rows)]
        rights = [self._load(k, self.right, prefix, [depth, x + column], width) for column in range(columns)]
        for row, left in enumerate(lefts):
            for column, right in enumerate(rights):
                at = (first + row * columns + column) * self.lanes
                k.assign(partial, at, k.read_vector(partial, at, width) + left * right, width)

    def _load(
        self, k: KernelBuilder, tensor: Tensor, prefix: list[Expr], index: Sequence[Expr], width: int
    ) -> Expr:
        assert tensor.storage is not None
        layout = tensor.storage.layout
        assert isinstance(layout, Strided)
        position = layout.position([*broadcast_index(prefix, tensor.shape[:-2]), *index])
        value = k.load_vector(tensor.storage.buffer, position, width)
        return k.bind(cast(value, self.accumulator if width == 1 else f"{self.accumulator}x{width}"))

    def _total(self, k: KernelBuilder, partial: Local, starts: Sequence[int]) -> Expr:
        """The sum of all lanes of the vectors that start there, halves added to halves."""
        vector = k.read_vector(partial, starts[0], self.lanes)
        for start in starts[1:]:
            vector = vector + k.read_vector(partial, start, self.lanes)
        lanes = self.lanes
        while lanes > 1:
            vector = k.bind(vector)
            lanes //= 2
            low, high = (
                tirx.Shuffle([vector], [tirx.const(first + lane, "int32") for lane in range(lanes)])
                for first in (0, lanes)
            )
            vector = low + high
        return k.bind(vector)

"""Columns of matrices folded by teams: each has a tile of columns and a part of the rows, which its warps share out.

Where tiles alone would leave multiprocessors idle, rows are folded in parts, and then those, in an order that is always the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.tiles import MULTIPROCESSORS
from graphopt.backends.kernels.rows import Fold
from graphopt.backends.layout import row_major_strides
from graphopt.backends.tensor import unravel

WARPS = 8
"""Of a team."""

TEAMS = 8 * MULTIPROCESSORS
"""That have enough reads under way together."""

TOGETHER = 4
"""Rows that a thread reads before it folds them."""

LEAST_ROWS = 16
"""Of a warp, where rows are folded in parts."""

Read = Callable[[Sequence[Expr], Expr, Expr], Expr]
"""The element of a matrix, row and column."""

Store = Callable[[DeviceBuilder, Sequence[Expr], Expr, Expr], None]
"""Takes a matrix, a column and what that was folded into."""


@dataclass(frozen=True)
class Columns:
    """`[matrices..., rows, columns]`, of which a thread reads `width` columns with one access."""

    matrices: tuple[int, ...]
    rows: int
    columns: int
    width: int
    fold: Fold
    dtype: str

    def emit(self, k: DeviceBuilder, read: Read, store: Store) -> None:
        """Fold every column."""
        rows = self._rows_of_part
        parts = -(-self.rows // rows)
        if parts == 1:
            self._fold(k, rows, read, lambda k, place, column, total: store(k, place[:-1], column, total))
            return
        shape = (*self.matrices, parts, self.columns)
        partial = Buffer("partial", math.prod(shape), self.dtype)

        def position(index: Sequence[Expr]) -> Expr:
            return sum((i * s for i, s in zip(index, row_major_strides(shape), strict=True)), 0)

        def keep(k: DeviceBuilder, place: Sequence[Expr], column: Expr, total: Expr) -> None:
            k.store(partial, position([*place, column]), total)

        self._fold(k, rows, read, keep)
        rest = Columns(self.matrices, parts, self.columns, 1, self.fold, self.dtype)
        rest.emit(k, lambda matrix, part, column: k.load(partial, position([*matrix, part, column])), store)

    @property
    def _together(self) -> int:
        """Rows that a thread reads before it folds them."""
        return TOGETHER if self.rows % (WARPS * TOGETHER) == 0 else 1

    @property
    def _rows_of_part(self) -> int:
        """A multiple of those that a team folds in a round."""
        tiles = math.prod(self.matrices) * -(-self.columns // (WARP * self.width))
        parts = max(1, min(TEAMS // tiles, self.rows // (WARPS * LEAST_ROWS)))
        step = WARPS * self._together
        return -(-self.rows // (parts * step)) * step

    def _fold(self, k: DeviceBuilder, rows: int, read: Read, store: Store) -> None:
        """Fold so many rows a team. `store` takes the matrix and the part as one place."""
        tile = WARP * self.width
        shape = [*self.matrices, -(-self.rows // rows), -(-self.columns // tile)]
        with k.loop(math.prod(shape), "independent", "tile") as number:
            *place, block = (i if isinstance(i, int) else k.bind(i) for i in unravel(number, shape))
            thread = k.team(WARP * WARPS)
            warp, own = (
                k.bind(tirx.op.truncdiv(thread, WARP)),
                k.bind(tirx.op.truncmod(thread, WARP) * self.width),
            )
            first = k.bind(block * tile + own)
            partial, totals = k.local(self.width, self.dtype), k.shared(WARPS * tile, self.dtype)
            for lane in range(self.width):
                k.assign(partial, lane, const(self.fold.initial(self.dtype), self.dtype))
            with k.when(first < self.columns if self.columns % tile else True):
                start = k.bind(place[-1] * rows + warp)
                self._fold_rows(
                    k, start, rows, partial, lambda row, lane: read(place[:-1], row, first + lane)
                )
            for lane in range(self.width):
                k.assign(totals, warp * tile + own + lane, partial[lane])
            k.wait()
            self._finish(k, totals, thread, block, lambda k, column, total: store(k, place, column, total))

    def _fold_rows(
        self, k: DeviceBuilder, start: Expr, rows: int, partial: Local, element: Callable[[Expr, Expr], Expr]
    ) -> None:
        """Fold those of so many rows that a warp has, every eighth one from `start`; `element` takes a row and a lane."""
        step = WARPS * self._together
        with k.loop(rows // step, "serial", "round") as number:
            row = k.bind(start + number * step)
            with k.when(row < self.rows if self.rows % rows else True), k.lanes(self.width) as lane:
                values = [k.bind(element(row + each * WARPS, lane)) for each in range(self._together)]
                for value in values:
                    k.assign(partial, lane, self.fold.combine(partial[lane], value))

    def _finish(
        self,
        k: DeviceBuilder,
        totals: Local,
        thread: Expr,
        block: Expr,
        store: Callable[[DeviceBuilder, Expr, Expr], None],
    ) -> None:
        """Fold what the warps have found."""
        tile = WARP * self.width
        column = k.bind(block * tile + thread)
        tests = [thread < tile] if tile < WARP * WARPS else []
        tests += [column < self.columns] if self.columns % tile else []
        with k.when(tirx.op.all(*tests) if tests else True):
            total = k.local(1, self.dtype)
            k.assign(total, 0, totals[thread])
            for warp in range(1, WARPS):
                k.assign(total, 0, self.fold.combine(total[0], totals[thread + warp * tile]))
            store(k, column, total[0])

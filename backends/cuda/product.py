"""Products of float32, and convolutions as products whose right operand is gathered, on the multiply-add units of a GPU.

A team computes a tile of the result. Step by step along the depth it brings both operands into shared memory, from where every
thread multiplies a small tile of its own in registers. Where there are too few tiles for the multiprocessors, the depth is cut
into parts whose sums are added by a second launch, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.extents import Extents, inside
from graphopt.backends.cuda.parts import Store, in_parts
from graphopt.backends.cuda.tiles import ProductTile, parts_of
from graphopt.backends.kernels.window import split_index

PADDING = 4
"""Elements between rows of a tile in shared memory, so that its columns lie in different banks."""

Element = Callable[[KernelBuilder, Expr, Expr, Expr], Expr]
"""An operand's element: of a product of the batch, at a row or column, at a depth."""


@dataclass(frozen=True)
class TiledProduct:
    """Emits one product. `left(k, batch, row, depth)`, `right(k, batch, column, depth)`; both are asked for existing ones only.

    `partial(size)` gives memory for the sums of parts of the depth.
    """

    extents: Extents
    tile: ProductTile
    dtype: str
    left: Element
    right: Element
    store: Store
    partial: Callable[[int], Buffer]
    left_along_depth: bool = True
    """Whether neighbours in memory of the left operand are neighbours in depth."""
    right_along_depth: bool = False

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        extents = self.extents
        parts = parts_of(self.tile, extents.batch * extents.rows, extents.columns, extents.depth)
        if parts == 1:
            self._tiles(k, 1, self.store)
            return
        sums = self.partial(parts * extents.results)
        in_parts(k, extents, parts, sums, self.store, lambda store: self._tiles(k, parts, store))

    def _tiles(self, k: DeviceBuilder, parts: int, store: Store) -> None:
        extents, tile = self.extents, self.tile
        counts = [
            extents.batch * parts,
            -(-extents.rows // tile.rows),
            -(-extents.columns // tile.columns),
        ]
        with k.loop(math.prod(counts), "independent", "tile") as number:
            which, row, column = (k.bind(i) for i in split_index(number, counts))
            _Team(self, k, parts, which, k.bind(row * tile.rows), k.bind(column * tile.columns)).run(store)


class _Team:
    """The work of one team: a tile of the result from `row` and `column`, over one part of the depth."""

    def __init__(
        self, product: TiledProduct, k: DeviceBuilder, parts: int, which: Expr, row: Expr, column: Expr
    ) -> None:
        self.product, self.k, self.which, self.row, self.column = product, k, which, row, column
        self.tile = tile = product.tile
        self.thread = k.team(tile.threads)
        self.batch = which if parts == 1 else k.bind(tirx.op.floordiv(which, parts))
        steps = -(-product.extents.depth // tile.depth)
        self.steps = -(-steps // parts)
        part = 0 if parts == 1 else tirx.op.floormod(which, parts)
        self.first = k.bind(part * (self.steps * tile.depth)) if parts > 1 else 0
        self.across = tile.columns // tile.thread_columns
        self.my_row = k.bind(tirx.op.floordiv(self.thread, self.across) * tile.thread_rows)
        self.my_column = k.bind(tirx.op.floormod(self.thread, self.across))

    def run(self, store: Store) -> None:
        k, tile, product = self.k, self.tile, self.product
        extents = product.extents
        left = k.shared(tile.depth * (tile.rows + PADDING), product.dtype)
        right = k.shared(tile.depth * (tile.columns + PADDING), product.dtype)
        sums = k.local(tile.thread_rows * tile.thread_columns, product.dtype)
        with k.loop(tile.thread_rows * tile.thread_columns, "unroll", "s") as s:
            k.assign(sums, s, const(0, product.dtype))
        with k.loop(self.steps, "serial", "step") as step:
            depth = k.bind(self.first + step * tile.depth)
            self._bring(
                left, tile.rows, self.row, extents.rows, depth, product.left, product.left_along_depth
            )
            self._bring(
                right,
                tile.columns,
                self.column,
                extents.columns,
                depth,
                product.right,
                product.right_along_depth,
            )
            k.wait()
            self._multiply(left, right, sums)
            k.wait()
        self._finish(sums, store)

    def _bring(
        self, memory: Local, size: int, start: Expr, extent: int, depth: Expr, element: Element, along: bool
    ) -> None:
        """Part of an operand into shared memory, as rows of one depth each; zeros beyond its ends."""
        k, tile, product = self.k, self.tile, self.product
        count = size * tile.depth // tile.threads
        with k.loop(count, "unroll", "load") as load:
            number = k.bind(load * tile.threads + self.thread)
            outer, inner = (size, tile.depth) if along else (tile.depth, size)
            first, second = k.bind(tirx.op.floordiv(number, inner)), k.bind(tirx.op.floormod(number, inner))
            assert outer * inner == size * tile.depth
            place, at = (first, second) if along else (second, first)
            where, deep = k.bind(start + place), k.bind(depth + at)
            exists = inside([(where, extent, size), (deep, product.extents.depth, tile.depth * self.steps)])
            value = (
                k.guard(exists, lambda: element(k, self.batch, where, deep), const(0, product.dtype))
                if exists is not None
                else element(k, self.batch, where, deep)
            )
            k.assign(memory, at * (size + PADDING) + place, value)

    def _multiply(self, left: Local, right: Local, sums: Local) -> None:
        k, tile = self.k, self.tile
        with k.loop(tile.depth, "unroll", "depth") as depth:
            a, b = (
                k.local(tile.thread_rows, self.product.dtype),
                k.local(tile.thread_columns, self.product.dtype),
            )
            with k.loop(tile.thread_rows, "unroll", "y") as y:
                k.assign(a, y, left[depth * (tile.rows + PADDING) + self.my_row + y])
            with k.loop(tile.thread_columns, "unroll", "x") as x:
                k.assign(b, x, right[depth * (tile.columns + PADDING) + self.my_column + x * self.across])
            with (
                k.loop(tile.thread_rows, "unroll", "y") as y,
                k.loop(tile.thread_columns, "unroll", "x") as x,
            ):
                at = y * tile.thread_columns + x
                k.assign(sums, at, sums[at] + a[y] * b[x])

    def _finish(self, sums: Local, store: Store) -> None:
        k, tile, extents = self.k, self.tile, self.product.extents
        with k.loop(tile.thread_rows, "unroll", "y") as y, k.loop(tile.thread_columns, "unroll", "x") as x:
            row, column = (
                k.bind(self.row + self.my_row + y),
                k.bind(self.column + self.my_column + x * self.across),
            )
            exists = inside([(row, extents.rows, tile.rows), (column, extents.columns, tile.columns)])
            with k.when(True if exists is None else exists):
                store(k, self.which, row, column, sums[y * tile.thread_columns + x])

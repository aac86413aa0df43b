"""Products of float32, and convolutions as products whose right operand is gathered, on the multiply-add units of a GPU.

A team computes a tile of the result. Step by step along the depth it brings both operands into shared memory, from where every
thread multiplies a small tile of its own in registers. What the next step needs is asked for before one is multiplied, and goes to the
other half of the memory. Where there are too few tiles for the multiprocessors, the depth is cut
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

STAGES = 2
"""Steps that lie in shared memory."""

DEPTHS = 8
"""Depths of a step that are written out in the code: what they read need not wait in registers for more."""

TOGETHER = 4
"""Neighbouring columns of a thread, which it reads and stores together."""

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
        self.my_column = k.bind(tirx.op.floormod(self.thread, self.across) * TOGETHER)
        extents = product.extents
        self.left = _Operand(self, product.left, product.left_along_depth, tile.rows, self.row, extents.rows)
        self.right = _Operand(
            self, product.right, product.right_along_depth, tile.columns, self.column, extents.columns
        )

    def run(self, store: Store) -> None:
        k, tile, product = self.k, self.tile, self.product
        sums = k.local(tile.thread_rows * tile.thread_columns, product.dtype)
        with k.loop(tile.thread_rows * tile.thread_columns, "unroll", "s") as s:
            k.assign(sums, s, const(0, product.dtype))
        self._fetch(const(0, "int32"))
        self._keep(const(0, "int32"))
        with k.loop(self.steps - 1, "serial", "step") as step:
            later = k.bind(step + 1)
            self._fetch(later)
            self._multiply(k.bind(tirx.op.truncmod(step, STAGES)), sums)
            self._keep(k.bind(tirx.op.truncmod(later, STAGES)))
        self._multiply(const((self.steps - 1) % STAGES, "int32"), sums)
        self._finish(sums, store)

    def _fetch(self, step: Expr) -> None:
        """Ask for what a step multiplies."""
        depth = self.k.bind(self.first + step * self.tile.depth)
        self.left.fetch(depth)
        self.right.fetch(depth)

    def _keep(self, stage: Expr) -> None:
        """Put what was asked for into shared memory, where all can read it then."""
        self.left.keep(stage)
        self.right.keep(stage)
        self.k.wait()

    def _multiply(self, stage: Expr, sums: Local) -> None:
        k, tile = self.k, self.tile
        with (
            k.loop(tile.depth // DEPTHS, "serial", "depths") as some,
            k.loop(DEPTHS, "unroll", "depth") as one,
        ):
            depth = some * DEPTHS + one
            a = k.local(tile.thread_rows, self.product.dtype)
            b = k.local(tile.thread_columns, self.product.dtype)
            with k.loop(tile.thread_rows, "unroll", "y") as y:
                k.assign(a, y, self.left.read(stage, depth, self.my_row + y))
            with k.loop(tile.thread_columns, "unroll", "x") as x:
                k.assign(b, x, self.right.read(stage, depth, self._column(x)))
            with (
                k.loop(tile.thread_rows, "unroll", "y") as y,
                k.loop(tile.thread_columns, "unroll", "x") as x,
            ):
                at = y * tile.thread_columns + x
                k.assign(sums, at, sums[at] + a[y] * b[x])

    def _column(self, x: Expr) -> Expr:
        """The place in the tile of a column of the thread: a few neighbours, then those behind all others' first ones."""
        group, place = tirx.op.floordiv(x, TOGETHER), tirx.op.floormod(x, TOGETHER)
        return self.my_column + group * (self.across * TOGETHER) + place

    def _finish(self, sums: Local, store: Store) -> None:
        k, tile = self.k, self.tile
        run = min(k.widest(tile.columns, lambda place: self._finish_one(store, 0, place, sums[0])), TOGETHER)
        with (
            k.loop(tile.thread_rows, "unroll", "y") as y,
            k.loop(tile.thread_columns // run, "unroll", "x") as x,
        ):
            first = k.bind(self._column(x * run))
            with k.lanes(run) as lane:
                value = sums[y * tile.thread_columns + x * run + lane]
                self._finish_one(store, y, first + lane, value)

    def _finish_one(self, store: Store, y: Expr, place: Expr, value: Expr) -> None:
        k, tile, extents = self.k, self.tile, self.product.extents
        row, column = k.bind(self.row + self.my_row + y), k.bind(self.column + place)
        exists = inside([(row, extents.rows, tile.rows), (column, extents.columns, tile.columns)])
        with k.when(True if exists is None else exists):
            store(k, self.which, row, column, value)


class _Operand:
    """`size` rows or columns of an operand from `start`, of `extent` that it has: what a thread brings of each step into shared memory,
    where they lie as rows of one depth each, with zeros beyond their ends."""

    def __init__(
        self, team: _Team, element: Element, along: bool, size: int, start: Expr, extent: int
    ) -> None:
        self.team, self.element, self.along = team, element, along
        self.size, self.start, self.extent = size, start, extent
        self.width = size + PADDING
        k, tile, dtype = team.k, team.tile, team.product.dtype
        self.count = size * tile.depth // tile.threads
        self.memory = k.shared(STAGES * tile.depth * self.width, dtype)
        self.registers = k.local(self.count, dtype)
        self.run = self._run()

    def read(self, stage: Expr, depth: Expr, place: Expr) -> Expr:
        """An element in shared memory."""
        return self.memory[stage * (self.team.tile.depth * self.width) + depth * self.width + place]

    def fetch(self, depth: Expr) -> None:
        """Ask for the elements of the step at a depth."""
        k = self.team.k
        with k.loop(self.count // self.run, "unroll", "load") as load:
            first = k.bind((load * self.team.tile.threads + self.team.thread) * self.run)
            with k.lanes(self.run) as lane:
                k.assign(self.registers, load * self.run + lane, self._element(first + lane, depth))

    def keep(self, stage: Expr) -> None:
        """Put them where the team finds them."""
        k, tile = self.team.k, self.team.tile
        with k.loop(self.count, "unroll", "load") as load:
            number = tirx.op.floordiv(load, self.run) * tile.threads + self.team.thread
            place, at = self._place(number * self.run + tirx.op.floormod(load, self.run))
            position = stage * (tile.depth * self.width) + at * self.width + place
            k.assign(self.memory, position, self.registers[load])

    def _run(self) -> int:
        """Neighbours in memory that a thread asks for together."""
        k, tile = self.team.k, self.team.tile
        depth = self.team.first + k.variable("step", self.team.steps) * tile.depth

        def bring(position: Expr) -> None:
            k.assign(self.registers, 0, self._element(position, depth))

        return k.widest(self.size * tile.depth, bring, tile.threads)

    def _place(self, position: Expr) -> tuple[Expr, Expr]:
        """The row or column, and the depth, of a position in the order of the operand's memory."""
        k, depth = self.team.k, self.team.tile.depth
        inner = depth if self.along else self.size
        outer, at = k.bind(tirx.op.floordiv(position, inner)), k.bind(tirx.op.floormod(position, inner))
        return (outer, at) if self.along else (at, outer)

    def _element(self, position: Expr, depth: Expr) -> Expr:
        """The element at a position of the step at a depth; zero beyond the ends."""
        team, product = self.team, self.team.product
        place, at = self._place(position)
        where, deep = team.k.bind(self.start + place), team.k.bind(depth + at)
        depths = team.tile.depth * team.steps
        exists = inside([(where, self.extent, self.size), (deep, product.extents.depth, depths)])
        if exists is None:
            return self.element(team.k, team.batch, where, deep)
        return team.k.guard(
            exists, lambda: self.element(team.k, team.batch, where, deep), const(0, product.dtype)
        )

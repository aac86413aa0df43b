"""Products of float32, and convolutions as products whose right operand is gathered, on the multiply-add units of a GPU.

A team computes a tile of the result. Step by step along the depth it brings both operands into shared memory, from where every
thread multiplies a small tile of its own in registers. What later steps need is asked for before one is multiplied. Where there are too
few tiles for the multiprocessors, the depth is cut into parts whose sums are added by a second launch, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.extents import Extents, inside
from graphopt.backends.cuda.instructions import COMMIT, await_copies
from graphopt.backends.cuda.operands import Element, Part, StagedOperand, Steps, stage_operand
from graphopt.backends.cuda.parts import Store, in_parts
from graphopt.backends.cuda.tiles import ProductTile
from graphopt.backends.kernels.window import split_index

TOGETHER = 4
"""Neighbouring columns of a thread, which it reads and stores together."""

LANES_ACROSS = 8
"""Threads of a warp that have different columns."""


@dataclass(frozen=True)
class TiledProduct:
    """Emits one product. `left(k, batch, row, depth)`, `right(k, batch, column, depth)`; both are asked for existing ones only.

    `partial(size)` gives memory for the sums of parts of the depth.
    """

    extents: Extents
    tile: ProductTile
    parts: int
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
        extents, parts = self.extents, self.parts
        if parts == 1:
            self._tiles(k, self.store)
            return
        sums = self.partial(parts * extents.results)
        in_parts(k, extents, parts, sums, self.store, lambda store: self._tiles(k, store))

    def _tiles(self, k: DeviceBuilder, store: Store) -> None:
        extents, tile, parts = self.extents, self.tile, self.parts
        counts = [
            extents.batch * parts,
            -(-extents.rows // tile.rows),
            -(-extents.columns // tile.columns),
        ]
        with k.loop(math.prod(counts), "independent", "tile") as number:
            which, row, column = (k.bind(i) for i in split_index(number, counts))
            _Team(self, k, which, k.bind(row * tile.rows), k.bind(column * tile.columns)).run(store)


class _Team:
    """The work of one team: a tile of the result from `row` and `column`, over one part of the depth."""

    def __init__(self, product: TiledProduct, k: DeviceBuilder, which: Expr, row: Expr, column: Expr) -> None:
        self.product, self.k, self.which, self.row, self.column = product, k, which, row, column
        self.tile, parts = product.tile, product.parts
        tile = self.tile
        self.thread = k.team(tile.threads)
        self.batch = which if parts == 1 else k.bind(tirx.op.floordiv(which, parts))
        steps = -(-product.extents.depth // tile.depth)
        self.steps = -(-steps // parts)
        part = 0 if parts == 1 else tirx.op.floormod(which, parts)
        self.first = k.bind(part * (self.steps * tile.depth)) if parts > 1 else 0
        self.across = tile.columns // tile.thread_columns
        down, across = self._place()
        self.my_row, self.my_column = k.bind(down * tile.thread_rows), k.bind(across * TOGETHER)
        self.operands = self.left, self.right = self._operands()

    def _operands(self) -> tuple[StagedOperand, StagedOperand]:
        product, tile, extents = self.product, self.tile, self.product.extents
        steps = Steps(self.steps, tile.depth, self.first, extents.depth, tile.threads, tile.stages)
        left = Part(product.left, self.batch, self.row, tile.rows, extents.rows, product.left_along_depth)
        right = Part(
            product.right, self.batch, self.column, tile.columns, extents.columns, product.right_along_depth
        )
        make = partial(stage_operand, self.k, steps=steps, thread=self.thread, dtype=product.dtype)
        return make(left), make(right)

    def _place(self) -> tuple[Expr, Expr]:
        """Where the thread is among all: those of a warp form a block, which reads the fewest rows and columns."""
        warp, lane = (self.k.bind(each(self.thread, WARP)) for each in (tirx.op.floordiv, tirx.op.floormod))
        lanes = min(self.across, LANES_ACROSS)
        warps = self.across // lanes
        down = tirx.op.floordiv(warp, warps) * (WARP // lanes) + tirx.op.floordiv(lane, lanes)
        return down, tirx.op.floormod(warp, warps) * lanes + tirx.op.floormod(lane, lanes)

    def run(self, store: Store) -> None:
        k, tile, product = self.k, self.tile, self.product
        sums = k.local(tile.thread_rows * tile.thread_columns, product.dtype)
        with k.loop(tile.thread_rows * tile.thread_columns, "unroll", "s") as s:
            k.assign(sums, s, const(0, product.dtype))
        for step in range(tile.stages - 1):
            self._begin(step)
        with k.loop(self.steps, "serial", "step") as step:
            k.invoke(await_copies(tile.stages - 2))
            k.wait()
            for operand in self.operands:
                with self._later(step, operand) as later:
                    operand.ask(later)
            k.invoke(COMMIT)
            self._multiply(self.left.stage(step), sums)
            for operand in self.operands:
                with self._later(step, operand) as later:
                    operand.keep(later)
        self._finish(sums, store)

    def _begin(self, step: int) -> None:
        """Ask for what is needed before the first step. Waits count what is asked for, so that a step that there is not counts too."""
        for operand in self.operands:
            if step < min(operand.ahead, self.steps):
                operand.ask(const(step, "int32"))
                operand.keep(const(step, "int32"))
        self.k.invoke(COMMIT)

    @contextmanager
    def _later(self, step: Expr, operand: StagedOperand) -> Iterator[Expr]:
        """The step that an operand is ahead by, if there is one."""
        later = self.k.bind(step + operand.ahead)
        with self.k.when(later < self.steps):
            yield later

    def _multiply(self, stage: Expr, sums: Local) -> None:
        """Add a step. What the next depth needs is read while one is multiplied."""
        k, tile = self.k, self.tile
        a = k.local(2 * tile.thread_rows, self.product.dtype)
        b = k.local(2 * tile.thread_columns, self.product.dtype)
        self._read(stage, const(0, "int32"), a, b)
        with k.loop(tile.depth, "unroll", "depth") as depth:
            with k.when(depth + 1 < tile.depth):
                self._read(stage, depth + 1, a, b)
            half = tirx.op.truncmod(depth, 2)
            with (
                k.loop(tile.thread_rows, "unroll", "y") as y,
                k.loop(tile.thread_columns, "unroll", "x") as x,
            ):
                at = y * tile.thread_columns + x
                product = a[half * tile.thread_rows + y] * b[half * tile.thread_columns + x]
                k.assign(sums, at, sums[at] + product)

    def _read(self, stage: Expr, depth: Expr, a: Local, b: Local) -> None:
        """The rows and columns of the thread at a depth, into one half of its registers for them."""
        k, tile, half = self.k, self.tile, tirx.op.truncmod(depth, 2)
        with k.loop(tile.thread_rows, "unroll", "y") as y:
            k.assign(a, half * tile.thread_rows + y, self.left.read(stage, depth, self.my_row + y))
        with k.loop(tile.thread_columns, "unroll", "x") as x:
            k.assign(b, half * tile.thread_columns + x, self.right.read(stage, depth, self._column(x)))

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

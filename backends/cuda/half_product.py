"""Products of halves on tensor cores: operands come to shared memory several steps ahead, sums are float32.

The fragments that threads hold are those of `mma.m16n8k16` in NVIDIA's PTX ISA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.instructions import (
    COMMIT,
    COPY,
    LOAD,
    LOAD_TRANSPOSED,
    MULTIPLY,
    await_copies,
)
from graphopt.backends.cuda.product import Extents, Store, inside
from graphopt.backends.kernels.window import split_index

CHUNK = 8
"""Halves that are copied at a time: 16 bytes."""

PADDING = 8
"""Halves between rows in shared memory, so that eight rows lie in different banks."""

BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH = 16, 8, 16
"""Of one instruction."""

Address = Callable[[KernelBuilder, Expr, Expr, Expr], Expr]
"""The address of an operand's element: of a product of the batch, at a row or column, at a depth."""


@dataclass(frozen=True)
class HalfTile:
    """`rows x columns` by a team of warps, `warp_rows x warp_columns` by each, `stages` steps of `depth` in memory."""

    rows: int
    columns: int
    depth: int
    warp_rows: int
    warp_columns: int
    stages: int

    @property
    def threads(self) -> int:
        return WARP * (self.rows // self.warp_rows) * (self.columns // self.warp_columns)


HALF_TILES = (
    HalfTile(128, 128, 32, 64, 32, 2),
    HalfTile(128, 64, 32, 64, 32, 3),
    HalfTile(64, 64, 32, 32, 32, 4),
)
"""From the most to the least work for a byte that is copied."""

ENOUGH = 100
"""Tiles that keep most multiprocessors busy."""


def choose_half_tile(extents: Extents) -> HalfTile:
    """The largest tile of which there are enough."""

    def count(tile: HalfTile) -> int:
        return extents.batch * -(-extents.rows // tile.rows) * -(-extents.columns // tile.columns)

    return next((tile for tile in HALF_TILES if count(tile) >= ENOUGH), HALF_TILES[-1])


@dataclass(frozen=True)
class HalfProduct:
    """Emits one product. Chunks of the left operand lie along the depth, those of the right along columns or the depth."""

    extents: Extents
    tile: HalfTile
    left: Address
    right: Address
    right_along_depth: bool
    store: Store

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        extents, tile = self.extents, self.tile
        counts = [extents.batch, -(-extents.columns // tile.columns), -(-extents.rows // tile.rows)]
        with k.loop(math.prod(counts), "independent", "tile") as number:
            batch, column, row = (k.bind(i) for i in split_index(number, counts))
            _Team(self, k, batch, k.bind(row * tile.rows), k.bind(column * tile.columns)).run()


@dataclass(frozen=True)
class _Operand:
    """A part of an operand in shared memory: `stages` times `outer` rows of `inner` halves, neighbours in memory."""

    memory: Local
    outer: int
    inner: int
    along_depth: bool

    def place(self, stage: Expr, outer: Expr, inner: Expr) -> Expr:
        return (stage * self.outer + outer) * (self.inner + PADDING) + inner


class _Team:
    """The work of one team: a tile of the result from `row` and `column`."""

    def __init__(self, product: HalfProduct, k: DeviceBuilder, batch: Expr, row: Expr, column: Expr) -> None:
        self.product, self.k, self.batch, self.row, self.column = product, k, batch, row, column
        self.tile = tile = product.tile
        self.thread = k.team(tile.threads)
        self.lane = k.bind(tirx.op.floormod(self.thread, WARP))
        warp, across = k.bind(tirx.op.floordiv(self.thread, WARP)), tile.columns // tile.warp_columns
        self.warp_row = k.bind(tirx.op.floordiv(warp, across) * tile.warp_rows)
        self.warp_column = k.bind(tirx.op.floormod(warp, across) * tile.warp_columns)
        self.steps = -(-product.extents.depth // tile.depth)
        self.left = self._operand(tile.rows, True)
        self.right = self._operand(tile.columns, product.right_along_depth)

    def _operand(self, size: int, along_depth: bool) -> _Operand:
        tile = self.tile
        outer, inner = (size, tile.depth) if along_depth else (tile.depth, size)
        memory = self.k.shared(tile.stages * outer * (inner + PADDING), "float16")
        return _Operand(memory, outer, inner, along_depth)

    def run(self) -> None:
        k, tile = self.k, self.tile
        blocks = tile.warp_rows // BLOCK_ROWS * (tile.warp_columns // BLOCK_COLUMNS)
        sums = k.local(4 * blocks, "float32")
        with k.loop(4 * blocks, "unroll", "s") as s:
            k.assign(sums, s, const(0.0, "float32"))
        for stage in range(tile.stages - 1):
            self._copy(const(stage, "int32"))
        with k.loop(self.steps, "serial", "step") as step:
            k.invoke(await_copies(tile.stages - 2))
            k.wait()
            self._copy(k.bind(step + (tile.stages - 1)))
            stage = k.bind(tirx.op.floormod(step, tile.stages))
            for depth in range(0, tile.depth, BLOCK_DEPTH):
                self._multiply(sums, stage, depth)
        self._finish(sums)

    def _copy(self, step: Expr) -> None:
        """Ask for the chunks of a step; none exist after the last one."""
        extents, product = self.product.extents, self.product
        self._copy_operand(self.left, step, self.row, extents.rows, product.left)
        self._copy_operand(self.right, step, self.column, extents.columns, product.right)
        self.k.invoke(COMMIT)

    def _copy_operand(
        self, operand: _Operand, step: Expr, start: Expr, extent: int, address: Address
    ) -> None:
        k, tile, depth = self.k, self.tile, self.product.extents.depth
        chunks = operand.inner // CHUNK
        stage = k.bind(tirx.op.floormod(step, tile.stages))
        with k.loop(operand.outer * chunks // tile.threads, "unroll", "copy") as copy:
            number = k.bind(copy * tile.threads + self.thread)
            outer = k.bind(tirx.op.floordiv(number, chunks))
            inner = k.bind(tirx.op.floormod(number, chunks) * CHUNK)
            place, deep = (outer, inner) if operand.along_depth else (inner, outer)
            where, at = k.bind(start + place), k.bind(step * tile.depth + deep)
            exists = k.bind(tirx.Cast("int32", tirx.op.all(where < extent, at < depth)))
            source = address(k, self.batch, where * exists, at * exists)
            k.invoke(COPY, _pointer(operand.memory, operand.place(stage, outer, inner)), source, exists)

    def _multiply(self, sums: Local, stage: Expr, depth: int) -> None:
        """One block of depth, by all blocks of the warp."""
        k, tile = self.k, self.tile
        rows, columns = tile.warp_rows // BLOCK_ROWS, tile.warp_columns // BLOCK_COLUMNS
        left, right = k.local(4 * rows, "uint32"), k.local(2 * columns, "uint32")
        low, high = k.bind(tirx.op.floormod(self.lane, 16)), k.bind(tirx.op.floordiv(self.lane, 16) * 8)
        with k.loop(rows, "unroll", "y") as y:
            at = self.left.place(stage, self.warp_row + y * BLOCK_ROWS + low, high + depth)
            k.invoke(LOAD, _pointer(left, y * 4), _pointer(self.left.memory, at))
        with k.loop(columns // 2, "unroll", "x") as x:
            column = self.warp_column + x * (2 * BLOCK_COLUMNS)
            if self.right.along_depth:
                inner, outer = tirx.op.floordiv(low, 8) * 8 + depth, column + tirx.op.floormod(low, 8) + high
            else:
                inner, outer = column + high, low + depth
            source = _pointer(self.right.memory, self.right.place(stage, outer, inner))
            k.invoke(LOAD if self.right.along_depth else LOAD_TRANSPOSED, _pointer(right, x * 4), source)
        with k.loop(rows, "unroll", "y") as y, k.loop(columns, "unroll", "x") as x:
            at = (y * columns + x) * 4
            k.invoke(MULTIPLY, _pointer(sums, at), _pointer(left, y * 4), _pointer(right, x * 2))

    def _finish(self, sums: Local) -> None:
        k, tile, extents = self.k, self.tile, self.product.extents
        rows, columns = tile.warp_rows // BLOCK_ROWS, tile.warp_columns // BLOCK_COLUMNS
        first_row = k.bind(self.row + self.warp_row + tirx.op.floordiv(self.lane, 4))
        first_column = k.bind(self.column + self.warp_column + tirx.op.floormod(self.lane, 4) * 2)
        with (
            k.loop(rows, "unroll", "y") as y,
            k.loop(columns, "unroll", "x") as x,
            k.loop(4, "unroll", "i") as i,
        ):
            row = k.bind(first_row + y * BLOCK_ROWS + tirx.op.floordiv(i, 2) * 8)
            column = k.bind(first_column + x * BLOCK_COLUMNS + tirx.op.floormod(i, 2))
            exists = inside([(row, extents.rows, tile.rows), (column, extents.columns, tile.columns)])
            with k.when(True if exists is None else exists):
                self.product.store(k, self.batch, row, column, sums[(y * columns + x) * 4 + i])


def _pointer(memory: Local, index: Expr) -> Expr:
    return tirx.op.address_of(memory[index])

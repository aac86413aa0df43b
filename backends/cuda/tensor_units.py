"""How a team multiplies what lies in shared memory: warp by warp with `mma.sync`, or by groups of four warps with `wgmma`.

The fragments that threads hold are those of `mma.m16n8` and `wgmma.m64nN` in NVIDIA's PTX ISA, which in bytes are the same for elements
of all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, Local, const
from graphopt.backends.codegen.inline import Inline
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.instructions import (
    LOAD,
    LOAD_TRANSPOSED,
    await_group,
    multiply,
    multiply_group,
)
from graphopt.backends.cuda.tensor_elements import CHUNKS, Element
from graphopt.backends.cuda.tensor_tiles import GROUP, GROUP_ROWS, TensorTile

BLOCK_ROWS, BLOCK_COLUMNS = 16, 8
"""Of one instruction of a warp."""


@dataclass(frozen=True)
class Layout:
    """Stages of `stage_size` elements, each with the rows of the left operand and, from `right`, those of the other one."""

    memory: Local
    element: Element
    stage_size: int
    right: int
    right_along_depth: bool

    def place(self, stage: Expr, base: int, row: Expr, column: Expr) -> Expr:
        """Where the chunk of `row` that begins at `column` lies."""
        element = self.element
        chunk = tirx.op.truncdiv(column, element.chunk)
        mixed = tirx.op.bitwise_xor(chunk, tirx.op.bitwise_and(row, const(CHUNKS - 1, "int32")))
        return stage * self.stage_size + base + row * element.step + mixed * element.chunk


class Units(Protocol):
    """The sums of a team."""

    def clear(self) -> None:
        """Begin with zeros."""

    def multiply(self, stage: Expr) -> None:
        """Add the products of a step."""

    def finish(self) -> None:
        """Wait until sums can be read."""

    def results(self) -> Iterator[tuple[Expr, Expr, Expr]]:
        """Row, column and value of every sum of a thread."""


def units_of(k: DeviceBuilder, tile: TensorTile, thread: Expr, layout: Layout) -> Units:
    """What the tile is multiplied by."""
    return _Groups(k, tile, thread, layout) if tile.by_groups else _Warps(k, tile, thread, layout)


class _Sums:
    def __init__(self, k: DeviceBuilder, thread: Expr, count: int, dtype: str) -> None:
        self.k, self.thread, self.count, self.dtype = k, thread, count, dtype
        self.lane = k.bind(tirx.op.truncmod(thread, WARP))
        self.warp = k.bind(tirx.op.truncdiv(thread, WARP))
        self.sums = k.local(count, dtype)

    def clear(self) -> None:
        with self.k.loop(self.count, "unroll", "s") as s:
            self.k.assign(self.sums, s, const(0, self.dtype))

    def _fragment(self, row: Expr, column: Expr, first: int) -> Iterator[tuple[Expr, Expr, Expr]]:
        """The four sums from `first`: two neighbours each of two rows."""
        for i in range(4):
            yield row + i // 2 * 8, column + i % 2, self.sums[first + i]

    def _corner(self) -> tuple[Expr, Expr]:
        """Where the fragments of a lane begin."""
        k = self.k
        return k.bind(tirx.op.truncdiv(self.lane, 4)), k.bind(tirx.op.truncmod(self.lane, 4) * 2)


class _Groups(_Sums):
    """64 rows and all columns of the tile by each group of warps; one step is multiplied while the next is asked for."""

    def __init__(self, k: DeviceBuilder, tile: TensorTile, thread: Expr, layout: Layout) -> None:
        super().__init__(k, thread, tile.columns // 2, layout.element.sums.dtype)
        self.tile, self.layout = tile, layout
        self.group = k.bind(tirx.op.truncdiv(thread, GROUP))

    def multiply(self, stage: Expr) -> None:
        layout, columns = self.layout, self.tile.columns
        start = self.k.bind(stage * layout.stage_size)
        left = _pointer(layout.memory, start + self.group * (GROUP_ROWS * layout.element.step))
        right = _pointer(layout.memory, start + layout.right)
        self.k.invoke(multiply_group(columns, layout.element), _pointer(self.sums, 0), left, right)

    def finish(self) -> None:
        self.k.invoke(await_group(self.tile.columns, self.layout.element), _pointer(self.sums, 0))

    def results(self) -> Iterator[tuple[Expr, Expr, Expr]]:
        row, column = self._corner()
        row = self.k.bind(row + self.warp * BLOCK_ROWS)
        for x in range(self.tile.columns // BLOCK_COLUMNS):
            yield from self._fragment(row, column + x * BLOCK_COLUMNS, x * 4)


class _Warps(_Sums):
    """A part of the tile by each warp."""

    def __init__(self, k: DeviceBuilder, tile: TensorTile, thread: Expr, layout: Layout) -> None:
        self.rows, self.columns = tile.warp_rows // BLOCK_ROWS, tile.warp_columns // BLOCK_COLUMNS
        super().__init__(k, thread, 4 * self.rows * self.columns, layout.element.sums.dtype)
        self.tile, self.layout = tile, layout
        across = tile.columns // tile.warp_columns
        self.row = k.bind(tirx.op.truncdiv(self.warp, across) * tile.warp_rows)
        self.column = k.bind(tirx.op.truncmod(self.warp, across) * tile.warp_columns)
        self.low = k.bind(tirx.op.truncmod(self.lane, 16))
        self.high = k.bind(tirx.op.truncdiv(self.lane, 16))

    def multiply(self, stage: Expr) -> None:
        element = self.layout.element
        for depth in range(0, element.step, element.depth):
            self._multiply_block(stage, depth)

    def _multiply_block(self, stage: Expr, depth: int) -> None:
        k, layout, element = self.k, self.layout, self.layout.element
        left, right = k.local(4 * self.rows, "uint32"), k.local(2 * self.columns, "uint32")
        for y in range(self.rows):
            row = self.row + y * BLOCK_ROWS + self.low
            at = layout.place(stage, 0, row, self.high * element.chunk + depth)
            k.invoke(LOAD, _pointer(left, y * 4), _pointer(layout.memory, at))
        for x in range(self.columns // 2):
            load, at = self._right(stage, self.column + x * (2 * BLOCK_COLUMNS), depth)
            k.invoke(load, _pointer(right, x * 4), _pointer(layout.memory, at))
        for y in range(self.rows):
            for x in range(self.columns):
                at = (y * self.columns + x) * 4
                operands = _pointer(left, y * 4), _pointer(right, x * 2)
                k.invoke(multiply(element), _pointer(self.sums, at), *operands)

    def _right(self, stage: Expr, column: Expr, depth: int) -> tuple[Inline, Expr]:
        """The instruction that loads two blocks of the right operand, and the row whose address the lane gives."""
        layout, step = self.layout, self.layout.element.step
        across = column + self.high * BLOCK_COLUMNS
        if layout.right_along_depth:
            row = across + tirx.op.truncmod(self.low, 8)
            inner = tirx.op.truncdiv(self.low, 8) * layout.element.chunk + depth
            return LOAD, layout.place(stage, layout.right, row, inner)
        block, inner = tirx.op.truncdiv(across, step), tirx.op.truncmod(across, step)
        at = layout.place(stage, layout.right, self.low + depth, inner)
        return LOAD_TRANSPOSED, at + block * (step * step)

    def finish(self) -> None:
        """Nothing is under way."""

    def results(self) -> Iterator[tuple[Expr, Expr, Expr]]:
        row, column = self._corner()
        row, column = self.k.bind(self.row + row), self.k.bind(self.column + column)
        for y in range(self.rows):
            for x in range(self.columns):
                at = (y * self.columns + x) * 4
                yield from self._fragment(row + y * BLOCK_ROWS, column + x * BLOCK_COLUMNS, at)


def _pointer(memory: Local, index: Expr) -> Expr:
    return tirx.op.address_of(memory[index])

"""Products on tensor cores: operands come to shared memory several steps ahead, sums are float32, of bytes int32.

A step is 128 bytes of the depth. Rows of 128 bytes lie in shared memory, and chunk c of row r at place c ^ (r % 8), so that neither the
copies nor the reads of neighbouring rows meet in a bank; `wgmma` calls this its 128-byte swizzle. Results go through shared memory
as well, so that neighbouring threads finish and store neighbouring elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.extents import Extents, inside
from graphopt.backends.cuda.instructions import COMMIT, COPY, FENCE, MEET, add_up, await_copies
from graphopt.backends.cuda.parts import Store, in_parts
from graphopt.backends.cuda.tensor_elements import CHUNKS, Element
from graphopt.backends.cuda.tensor_tiles import PADDING, TensorTile
from graphopt.backends.cuda.tensor_units import Layout, Units, units_of
from graphopt.backends.kernels.window import split_index

FEW = 32
"""Results of a thread up to which all are written out in the code."""

AT_A_TIME = 8

LONGEST = 8
"""Results of a run."""

TOGETHER = 4
"""Sums that come from another team's shared memory at a time."""


@dataclass(frozen=True)
class Operand:
    """Where chunks of an operand lie: along the depth, or along columns.

    `prepare(k, batch, place)` names what is the same for all depths at a row or column. `chunk(k, prepared, depth)` gives the
    address of the chunk there, and whether it exists; None where it always does.
    """

    prepare: Callable[[KernelBuilder, Expr, Expr], Any]
    chunk: Callable[[KernelBuilder, Any, Expr], tuple[Expr, Expr | None]]
    along_depth: bool = True


@dataclass(frozen=True)
class TensorProduct:
    """Emits one product. Chunks of the left operand lie along the depth. `partial(size)` gives memory for the sums of `parts` of the
    depth; results are stored `by_rows`, or column by column."""

    element: Element
    extents: Extents
    tile: TensorTile
    parts: int
    left: Operand
    right: Operand
    store: Store
    partial: Callable[[int], Buffer]
    by_rows: bool = True

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        if self.parts == 1 or self.in_cluster:
            self._tiles(k)
            return
        sums = self.partial(self.parts * self.extents.results)
        in_parts(
            k,
            self.extents,
            self.parts,
            sums,
            self.store,
            lambda store: replace(self, store=store, by_rows=True)._tiles(k),
        )

    @property
    def in_cluster(self) -> bool:
        """Whether the teams of all parts of a tile form a cluster, and add up their sums without another kernel."""
        return self.tile.is_clustered(self.parts)

    def _tiles(self, k: DeviceBuilder) -> None:
        extents, tile, parts = self.extents, self.tile, self.parts
        tiles = [-(-extents.rows // tile.rows), -(-extents.columns // tile.columns)]
        counts = [extents.batch, *tiles, parts] if self.in_cluster else [extents.batch * parts, *tiles]
        with k.loop(math.prod(counts), "independent", "tile") as number:
            first, row, column, *last = (k.bind(i) for i in split_index(number, counts))
            batch, part = first, 0
            if self.in_cluster:
                part = last[0]
            elif parts > 1:
                batch, part = k.bind(tirx.op.floordiv(first, parts)), k.bind(tirx.op.floormod(first, parts))
            place = k.bind(row * tile.rows), k.bind(column * tile.columns)
            _Team(self, k, first, batch, part, *place).run()


@dataclass(frozen=True)
class _Copier:
    """The chunks of an operand that one thread copies in every step: of `count` rows in shared memory, `distance` apart."""

    operand: Operand
    states: list[tuple[Any, Expr | None, Expr | None]]
    """What is prepared for each of them, whether it exists, and whether there is room for it: None where that is always so."""
    target: Expr
    """Where in a stage the first one goes."""
    distance: int
    along: Expr
    """Its place along the depth within a step; where chunks lie along columns, that of the first."""


class _Team:
    """The work of one team: a tile of the result from `row` and `column`, over one part of the depth."""

    def __init__(
        self,
        product: TensorProduct,
        k: DeviceBuilder,
        which: Expr,
        batch: Expr,
        part: Expr,
        row: Expr,
        column: Expr,
    ) -> None:
        self.product, self.k, self.which, self.row, self.column = product, k, which, row, column
        self.batch, self.part = batch, part
        self.tile, self.element = product.tile, product.element
        tile, step = product.tile, product.element.step
        self.thread = k.team(tile.threads, product.parts if product.in_cluster else 1)
        parts, steps = product.parts, -(-product.extents.depth // step)
        self.steps = -(-steps // parts)
        self.first = 0 if parts == 1 else k.bind(part * (self.steps * step))
        self.stage_size = (tile.rows + tile.columns) * step
        self.memory = k.overlay(tile.stages * self.stage_size, self.element.dtype)
        layout = Layout(
            self.memory, self.element, self.stage_size, tile.rows * step, product.right.along_depth
        )
        self.units: Units = units_of(k, tile, self.thread, layout)
        extents = product.extents
        self.copiers = [
            self._copier(product.left, 0, tile.rows, row, extents.rows),
            self._copier(product.right, tile.rows * step, tile.columns, column, extents.columns),
        ]

    def run(self) -> None:
        k, tile = self.k, self.tile
        self.units.clear()
        for step in range(tile.ahead):
            self._copy(const(step, "int32"), const(step, "int32"))
        with k.loop(self.steps, "serial", "step") as step:
            k.invoke(await_copies(tile.ahead - 1))
            if tile.by_groups:
                k.invoke(FENCE)
            k.wait()
            later = k.bind(step + tile.ahead)
            self._copy(later, k.bind(tirx.op.truncmod(later, tile.stages)))
            self.units.multiply(k.bind(tirx.op.truncmod(step, tile.stages)))
        self.units.finish()
        self._store()

    def _copier(self, operand: Operand, base: int, size: int, start: Expr, extent: int) -> _Copier:
        return (self._along_depth if operand.along_depth else self._along_columns)(
            operand, base, size, start, extent
        )

    def _along_depth(self, operand: Operand, base: int, count: int, start: Expr, extent: int) -> _Copier:
        """Rows of shared memory are rows, or columns, of the operand."""
        k, rows, step, size = self.k, self.tile.threads // CHUNKS, self.element.step, self.element.chunk
        own = k.bind(tirx.op.truncdiv(self.thread, CHUNKS))
        chunk = k.bind(tirx.op.truncmod(self.thread, CHUNKS))
        states = []
        for number in range(-(-count // rows)):
            place = k.bind(start + own + number * rows)
            fits = own + number * rows < count if (number + 1) * rows > count else None
            states.append((operand.prepare(k, self.batch, place), inside([(place, extent, count)]), fits))
        swizzled = tirx.op.bitwise_xor(chunk, tirx.op.bitwise_and(own, const(CHUNKS - 1, "int32")))
        return _Copier(
            operand,
            states,
            k.bind(base + own * step + swizzled * size),
            rows * step,
            k.bind(self.first + chunk * size),
        )

    def _along_columns(self, operand: Operand, base: int, count: int, start: Expr, extent: int) -> _Copier:
        """Rows of shared memory are depths, one block of 64 columns after the other."""
        k, step, size = self.k, self.element.step, self.element.chunk
        across = count // size
        rows = self.tile.threads // across
        own = k.bind(tirx.op.truncdiv(self.thread, across))
        chunk = k.bind(tirx.op.truncmod(self.thread, across))
        place = k.bind(start + chunk * size)
        state = (operand.prepare(k, self.batch, place), inside([(place, extent, count)]), None)
        block, inner = tirx.op.truncdiv(chunk, CHUNKS), tirx.op.truncmod(chunk, CHUNKS)
        swizzled = tirx.op.bitwise_xor(inner, tirx.op.bitwise_and(own, const(CHUNKS - 1, "int32")))
        target = k.bind(base + block * (step * step) + own * step + swizzled * size)
        return _Copier(operand, [state] * (step // rows), target, rows * step, k.bind(self.first + own))

    def _copy(self, step: Expr, stage: Expr) -> None:
        """Ask for the chunks of a step; none exist after the last one."""
        k = self.k
        start = k.bind(stage * self.stage_size)
        with k.when(step < self.steps):
            for copier in self.copiers:
                self._copy_operand(copier, k.bind(copier.along + step * self.element.step), start)
        k.invoke(COMMIT)

    def _copy_operand(self, copier: _Copier, depth: Expr, start: Expr) -> None:
        k, extent = self.k, self.product.extents.depth
        step = self.element.step
        rows = copier.distance // step
        for number, (state, has_place, fits) in enumerate(copier.states):
            at = depth if copier.operand.along_depth else k.bind(depth + number * rows)
            has_depth = inside([(at, extent, step * self.product.parts * self.steps)])
            address, has_chunk = copier.operand.chunk(k, state, at)
            tests = [test for test in (has_place, has_depth, has_chunk) if test is not None]
            exists = tirx.Cast("int32", tirx.op.all(*tests)) if tests else const(1, "int32")
            target = self.memory[start + copier.target + number * copier.distance]
            with k.when(True if fits is None else fits):
                k.invoke(COPY, tirx.op.address_of(target), address, exists)

    def _store(self) -> None:
        """Sums to shared memory as the warps have them, and from there to where they belong."""
        k, tile = self.k, self.tile
        width = tile.columns + PADDING
        sums = k.overlay(tile.rows * width, self.element.sums.dtype)
        k.wait()
        for row, column, value in self.units.results():
            k.assign(sums, row * width + column, value)
        if self.product.in_cluster:
            self._add_up(sums, width)
        else:
            k.wait()
        run = self._run(sums, width)
        runs = self._rows * tile.columns // run
        count = -(-runs // tile.threads)
        some = count if count * run <= FEW else math.gcd(count, max(AT_A_TIME // run, 1))
        with k.loop(count // some, "serial", "round") as number, k.loop(some, "unroll", "result") as i:
            at = k.bind((number * some + i) * tile.threads + self.thread)
            with k.when(at < runs if runs % tile.threads else True), k.lanes(run) as lane:
                self._store_one(sums, width, at * run + lane if run > 1 else at)

    @property
    def _rows(self) -> int:
        """Rows of the tile that the team stores."""
        return self.tile.rows // self.product.parts if self.product.in_cluster else self.tile.rows

    def _add_up(self, sums: Local, width: int) -> None:
        """The sums of all teams of the cluster, of the rows that this one stores, in the order of parts."""
        k, tile = self.k, self.tile
        across = tile.columns // TOGETHER
        count = self._rows * across
        k.invoke(MEET)
        for number in range(-(-count // tile.threads)):
            at = k.bind(number * tile.threads + self.thread)
            row = self.part * self._rows + tirx.op.truncdiv(at, across)
            place = row * width + tirx.op.truncmod(at, across) * TOGETHER
            with k.when(at < count if (number + 1) * tile.threads > count else True):
                own = tirx.op.address_of(sums[place])
                k.invoke(add_up(self.product.parts, self.element.sums), own)
        k.invoke(MEET)

    def _run(self, sums: Local, width: int) -> int:
        """Neighbouring results that a thread finishes together."""
        results = self._rows * self.tile.columns
        least = self.tile.threads * (results // self.tile.threads // LONGEST)
        return self.k.widest(results, lambda position: self._store_one(sums, width, position), least, False)

    def _store_one(self, sums: Local, width: int, position: Expr) -> None:
        k, tile, product, extents = self.k, self.tile, self.product, self.product.extents
        fast = tile.columns if product.by_rows else self._rows
        outer = k.bind(tirx.op.truncdiv(position, fast))
        inner = k.bind(tirx.op.truncmod(position, fast))
        y, x = (outer, inner) if product.by_rows else (inner, outer)
        if product.in_cluster:
            y = k.bind(y + self.part * self._rows)
        row, column = k.bind(self.row + y), k.bind(self.column + x)
        exists = inside([(row, extents.rows, tile.rows), (column, extents.columns, tile.columns)])
        with k.when(True if exists is None else exists):
            product.store(k, self.which, row, column, sums[y * width + x])

"""Results that lie along another axis than what they are computed from go through shared memory, tile by tile.

A thread computes neighbours along one axis, whose operands it reads with whole accesses, at a few places of the axis along which results
lie. It writes them to a tile in shared memory, whose rows its team then stores with whole accesses. Both sides of a tile have up to 128 bytes,
operands up to 256. Units of 16 bytes of a row are shuffled by the number of the run that the row is of, so that the eight threads of a
quarter of a warp that writes eight runs, or reads a row, meet no bank twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm_ffi import structural_mutate

from graphopt.backends.codegen.builder import INDEX, Expr, Local, storage_dtype
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda import places
from graphopt.backends.cuda.accesses import LARGEST, READ, WRITE, access_bytes
from graphopt.backends.cuda.builder import DeviceBuilder, element_size
from graphopt.backends.cuda.places import Element, Groups
from graphopt.backends.tensor import unravel

ROW = 128
"""Bytes of a tile along either axis: a line of the caches."""

LEAST_ACCESS = 4
"""Bytes that a thread writes to shared memory at once."""

MOST_THREADS = 1024
"""Of a block."""

SMALLEST = 32
"""Bytes along either axis below which a tile does not pay."""

MOST = 64
"""Elements of a thread."""

UNROLLED = 8
"""Rounds of stores that are written out one by one."""


@dataclass(frozen=True)
class Target:
    """Where results go: those at place `i` along the axis of runs lie at `start + i * stride + j`, of which a place across has `each`
    neighbours `j`."""

    buffer: Buffer
    start: Expr
    outer: dict[int, Any]
    """By group, the variables in `start`."""
    stride: int
    each: int
    scattered: int
    """Reads that are not whole."""
    aligned: int
    """Elements of which `start` is a multiple, up to those of a whole access."""


def target_of(
    k: DeviceBuilder, groups: Groups, along: int, across: int, width: int, element: Element
) -> Target | None:
    """Where results go if threads have runs of `width` along a group, and memory goes across it; None where it does not."""
    extents = [math.prod(group) for group in groups]
    if width == 1 or extents[along] % width:
        return None
    extents[along] //= width
    unit = [k.variable("unit", extent) for extent in extents]

    def body(lane: Expr) -> None:
        flat = [*unit]
        flat[along] = flat[along] * width + lane
        element(k, places.index(k, groups, flat))

    lanes = k.rehearse(width, body)
    if lanes is None or lanes.whole_writes or not lanes.scattered_writes:
        return None
    writes = lanes.scattered_writes
    buffer = writes[0].buffer
    if any(write.buffer is not buffer or not write.is_certain for write in writes):
        return None
    variables = [lanes.lane, unit[along], unit[across]]
    found = [lanes.linear(write.offset, variables) for write in writes]
    if found[0] is None:
        return None
    (stride, _, each), start = found[0]
    if (
        stride < 1
        or each < 1
        or any(one is None or one[0] != (stride, stride * width, each) for one in found)
    ):
        return None
    steps = [lanes.difference(one[1], start) for one in found if one is not None]
    if steps != list(range(each)):
        return None
    aligned = math.gcd(stride, LARGEST // element_size(buffer))
    while aligned > 1 and not lanes.is_multiple(start, aligned):
        aligned //= 2
    outer = {g: v for g, v in enumerate(unit) if g not in (along, across)}
    return Target(buffer, start, outer, stride, each, len(lanes.scattered), aligned)


@dataclass(frozen=True)
class Staged:
    """Runs of `width` along the group `along`, at `depth` places of the group `across` by each thread."""

    groups: Groups
    along: int
    across: int
    width: int
    depth: int
    target: Target

    @property
    def shape(self) -> tuple[int, ...]:
        """Runs along every group."""
        extents = [math.prod(group) for group in self.groups]
        extents[self.along] //= self.width
        extents[self.across] = -(-extents[self.across] // self.depth)
        return tuple(extents)

    @property
    def _size(self) -> int:
        return element_size(self.target.buffer)

    @property
    def _columns(self) -> int:
        """Elements of a thread in a row of the tile."""
        return self.depth * self.target.each

    @property
    def _sides(self) -> tuple[int, int]:
        """Threads along and across. Runs whose operands are less than two lines stay together: halves would share a line."""
        runs, own = self.shape[self.along], self.width * self._size
        beside = _balanced(self.shape[self.across], ROW // (self._columns * self._size))
        is_whole = ROW < runs * own < 2 * ROW and runs * beside <= MOST_THREADS
        return runs if is_whole else _balanced(runs, ROW // own), beside

    @property
    def threads(self) -> int:
        """Of a team."""
        return math.prod(self._sides)

    def store(self, k: DeviceBuilder, element: Element) -> None:
        """Let every team compute its tile."""
        side, _ = self._sides
        with k.loop(math.prod(self._tiles), "independent", "tile") as number:
            tile = [places.named(k, i) for i in unravel(number, self._tiles)]
            thread = k.team(self.threads)
            run, place = k.bind(tirx.op.truncmod(thread, side)), k.bind(tirx.op.truncdiv(thread, side))
            registers = self._compute(k, element, tile, run, place)
            shared = k.shared(side * self.width * self._units * self._unit, registers.dtype)
            self._write(k, registers, shared, run, place)
            k.wait()
            self._move(k, shared, tile, thread)

    @property
    def _tiles(self) -> list[int]:
        """Tiles along every group."""
        side, beside = self._sides
        tiles = list(self.shape)
        tiles[self.along], tiles[self.across] = (
            -(-tiles[self.along] // side),
            -(-tiles[self.across] // beside),
        )
        return tiles

    def _compute(
        self, k: DeviceBuilder, element: Element, tile: Sequence[Expr], run: Expr, place: Expr
    ) -> Local:
        """The results of a thread: those of each row next to each other."""
        shape, (side, beside) = self.shape, self._sides
        extent = math.prod(self.groups[self.across])
        registers = k.local(self.width * self._columns, storage_dtype(self.target.buffer.dtype))
        row = k.bind(tile[self.along] * side + run)
        first = k.bind((tile[self.across] * beside + place) * self.depth)
        exists = [row < shape[self.along]] if shape[self.along] % side else []
        for number in range(self.depth):
            at = k.bind(first + number) if number else first
            tests = [*exists, at < extent] if extent % (beside * self.depth) else exists
            with k.when(tirx.op.all(*tests) if tests else True), k.lanes(self.width) as lane:
                flat = list(tile)
                flat[self.along], flat[self.across] = row * self.width + lane, at
                with k.diverted(self.target.buffer, self._keep(k, registers, number, lane)):
                    element(k, places.index(k, self.groups, flat))
        return registers

    def _keep(self, k: DeviceBuilder, registers: Local, number: int, lane: Expr) -> Callable[[Expr], None]:
        """What takes the results of a lane at one of the places, in the order in which they are stored."""
        free = iter(range(number * self.target.each, (number + 1) * self.target.each))
        return lambda value: k.assign(registers, lane * self._columns + next(free), value)

    @property
    def _unit(self) -> int:
        """Elements of 16 bytes."""
        return LARGEST // self._size

    @property
    def _units(self) -> int:
        """Of a row of the tile, a power of two."""
        needed = -(-self._sides[1] * self._columns // self._unit)
        return 1 << (needed - 1).bit_length()

    def _place(self, row: Expr, run: Expr, column: Expr) -> Expr:
        """Where an element lies in the tile, of a row that is one of a run."""
        unit, within = tirx.op.truncdiv(column, self._unit), tirx.op.truncmod(column, self._unit)
        shuffled = tirx.op.bitwise_xor(unit, tirx.op.bitwise_and(run, self._units - 1))
        return (row * self._units + shuffled) * self._unit + within

    def _write(self, k: DeviceBuilder, registers: Local, shared: Local, run: Expr, place: Expr) -> None:
        """Write the rows of a thread to the tile."""
        count = self._columns
        each = access_bytes(count, self._size)
        for row in range(self.width):
            start = k.bind(self._place(run * self.width + row, run, place * count))
            if each == count * self._size:
                source = tirx.op.address_of(registers[row * count])
                k.invoke(WRITE[each], tirx.op.address_of(shared[start]), source)
            else:
                for column in range(count):
                    k.assign(shared, start + column, registers[row * count + column])

    def _move(self, k: DeviceBuilder, shared: Local, tile: Sequence[Expr], thread: Expr) -> None:
        """Store the rows of the tile."""
        side, beside = self._sides
        columns, rows = beside * self._columns, side * self.width
        wanted = math.prod(self.groups[self.across]) * self.target.each
        width = math.gcd(self.target.aligned, columns, wanted)
        runs, threads = columns // width, side * beside
        values = {v: tile[group] for group, v in self.target.outer.items()}
        first, first_column = tile[self.along] * (side * self.width), tile[self.across] * columns
        start = k.bind(_replaced(self.target.start, values) + first * self.target.stride + first_column)
        total = math.prod(self.groups[self.along])
        rounds = -(-rows * runs // threads)
        with k.loop(rounds, "unroll" if rounds <= UNROLLED else "serial", "round") as number:
            item = k.bind(number * threads + thread)
            row, column = k.bind(tirx.op.truncdiv(item, runs)), k.bind(tirx.op.truncmod(item, runs) * width)
            tests = [item < rows * runs] if rows * runs % threads else []
            tests += [first + row < total] if total % (side * self.width) else []
            tests += [first_column + column < wanted] if wanted % columns else []
            with k.when(tirx.op.all(*tests) if tests else True):
                at = k.bind(self._place(row, tirx.op.truncdiv(row, self.width), column))
                offset = start + row * self.target.stride + column
                self._store(k, shared, at, k.bind(offset), width)

    def _store(self, k: DeviceBuilder, shared: Local, at: Expr, offset: Expr, width: int) -> None:
        """Store neighbours of a row."""
        buffer, each = self.target.buffer, access_bytes(width, self._size)
        if not each:
            for column in range(width):
                k.store(buffer, offset + column, shared[at + column])
            return
        k.written.add(buffer)
        registers = k.local(width, shared.dtype)
        k.invoke(READ[each], tirx.op.address_of(registers[0]), tirx.op.address_of(shared[at]))
        k.invoke(WRITE[each], k.address(buffer, offset), tirx.op.address_of(registers[0]))


def _balanced(count: int, most: int) -> int:
    """Of parts as equal as can be, each of at most so many."""
    return -(-count // -(-count // most))


def _replaced(expr: Expr, values: Mapping[Any, Expr]) -> Expr:
    """An expression with values in place of variables."""
    known = {v: tirx.const(i, INDEX) if isinstance(i, int) else i for v, i in values.items()}
    return structural_mutate(expr, [(tirx.Var, lambda v, mutator: known.get(v, v))])


def staged(
    k: DeviceBuilder,
    groups: Groups,
    along: int,
    across: int,
    widths: Sequence[int],
    element: Element,
    least: int,
) -> Staged | None:
    """Tiles with the longest runs along a group of which all operands come with whole accesses, if they pay."""
    for width in widths:
        target = target_of(k, groups, along, across, width, element)
        if target is None or target.scattered:
            continue
        size, extents = element_size(target.buffer), [math.prod(group) for group in groups]
        own = target.each * size
        if min(extents[along] * size, extents[across] * own) < SMALLEST or LARGEST % own:
            return None
        depth = 1 if target.each > 1 else min(LARGEST // size, MOST // width)
        runs = math.prod(extents) // width
        while depth * own > LEAST_ACCESS and runs < least * depth:
            depth //= 2
        made = Staged(groups, along, across, width, depth, target)
        if made.threads <= MOST_THREADS:
            return made
    return None

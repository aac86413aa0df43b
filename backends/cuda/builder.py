"""Builds kernels for a GPU: outermost independent loops become launches, in which every thread runs one iteration or, where the
body asks for a team, every block of threads does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import (
    INDEX,
    Expr,
    Family,
    KernelBuilder,
    Local,
    const,
    dtype_of,
    storage_dtype,
)
from graphopt.backends.codegen.inline import Inline
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.accesses import LARGEST, READ, READ_WHERE, WRITE, access_bytes
from graphopt.backends.cuda.grid import Grid, Team
from graphopt.backends.cuda.lanes import LaneLocal, Lanes, Unsuited

WARP = 32
"""Threads that run in step and can read each other's registers."""

INDEPENDENT = ("parallel", "balanced", "independent")
"""Kinds of loops whose iterations may run in any order."""

WIDTHS = (16, 8, 4, 2)
"""Of runs of neighbouring elements."""

ALL_LANES = 0xFFFFFFFF


class DeviceBuilder(KernelBuilder):
    """A KernelBuilder whose outermost independent loops are grids."""

    def __init__(self, twins: Mapping[Any, Any]) -> None:
        super().__init__()
        self.twins = twins
        self._team = Team()
        self._ranges: list[tuple[Any, int]] = []
        self._names: dict[Any, Expr] = {}
        self._lanes: Lanes | None = None
        self._rehearses = False
        self._diverted: tuple[Buffer, Callable[[Expr], None]] | None = None

    def twin(self, family: Family) -> Family:
        found: Family = self.twins.get(family, family)
        return found

    @property
    def steps(self) -> list[Any]:
        """The outermost statements: grids, and whatever stands between them."""
        return self._blocks[0]

    @contextmanager
    def loop(self, extent: Expr, kind: str = "serial", name: str = "i") -> Iterator[Expr]:
        """A grid where it is outermost and independent; a loop of a thread elsewhere. There are no vectors."""
        if kind in INDEPENDENT and len(self._blocks) == 1 and isinstance(extent, int):
            with self._grid(extent, name) as variable:
                yield variable
            return
        if self._lanes is not None and (self._lanes.is_plain or self._lanes.varies(extent)):
            raise Unsuited
        with super().loop(extent, "unroll" if kind == "unroll" else "serial", name) as variable:
            if isinstance(extent, int) and extent > 1:
                self._know(variable, extent)
            yield variable

    @contextmanager
    def _grid(self, extent: int, name: str) -> Iterator[Expr]:
        variable = tirx.Var(self._name(name), INDEX)
        self._team = team = Team()
        self._know(variable, extent)
        with self._block() as statements:
            yield variable
        if extent:
            is_apart = team.meets or team.threads > WARP
            asked = team.variable, team.threads, team.shared, is_apart, team.cluster
            self.append(Grid(variable, extent, statements, *asked))

    def team(self, threads: int, cluster: int = 1) -> Expr:
        """Let a whole block of threads run each iteration of the grid around; gives the number of the thread in it. As many
        neighbouring teams as a `cluster` has see each other's shared memory."""
        team = self._team
        if team.variable is None:
            team.variable = tirx.Var(self._name("thread"), INDEX)
            team.threads, team.cluster = threads, cluster
            self._know(team.variable, threads)
        assert team.threads == threads
        return team.variable

    @property
    def team_size(self) -> int:
        """Threads of the team of the grid around; 0 while none was asked for."""
        return self._team.threads

    def _know(self, variable: Any, extent: int) -> None:
        self._ranges.append((variable, extent))
        if self._lanes is not None:
            self._lanes.know(variable, extent)

    def variable(self, name: str, extent: int) -> Expr:
        """A number in [0, extent) that comes from elsewhere."""
        variable = tirx.Var(self._name(name), INDEX)
        self._know(variable, extent)
        return variable

    @contextmanager
    def lanes(self, width: int) -> Iterator[Expr]:
        """What the body says of one lane, a thread does for `width` of them. Raises Unsuited where the body does not allow it.

        Elements of buffers that neighbouring lanes find next to each other are read and written together."""
        if width == 1:
            yield 0
            return
        assert self._lanes is None
        self._lanes = Lanes(width, self._ranges, self._names, len(self._blocks))
        try:
            with self.fresh_values():
                yield self._lanes.lane
        finally:
            self._lanes = None

    def know_flat(self, index: Sequence[Expr], shape: Sequence[int], position: Expr) -> None:
        """An index, whose parts have names, is that of a flat position within `shape`."""
        if self._lanes is not None:
            self._lanes.know_flat(index, shape, position)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is built here is forgotten."""
        functions, written = dict(self.functions), set(self.written)
        try:
            with self._block():
                yield
        finally:
            self.functions, self.written = functions, written

    def rehearse(self, width: int, body: Callable[[Expr], Any]) -> Lanes | None:
        """What would become of a body of lanes; None where it does not allow them."""
        lanes, self._rehearses = None, True
        try:
            with self.aside(), self.lanes(width) as lane:
                lanes = self._lanes
                body(lane)
        except Unsuited:
            return None
        finally:
            self._rehearses = False
        return lanes

    def widest(self, extent: int, body: Callable[[Expr], Any], least: int = 1, all_reads: bool = True) -> int:
        """The longest runs in which a thread can do `body` for positions below `extent`, so that at least so many are left: as long
        as 16 bytes hold of the smallest elements, if all that it writes, and unless told otherwise all that it reads, comes in whole
        accesses; else 1."""
        for width in WIDTHS:
            if extent % width or extent < width * least:
                continue
            tried = self._rehearse_run(extent, width, body)
            if tried is None or tried.scattered_writes or (all_reads and tried.scattered) or not tried.whole:
                continue
            if min(map(element_size, tried.whole)) * width <= LARGEST:
                return width
        return 1

    def _rehearse_run(self, extent: int, width: int, body: Callable[[Expr], Any]) -> Lanes | None:
        if self._lanes is not None:
            return None
        first = self.variable("run", extent // width) * width
        return self.rehearse(width, lambda lane: body(first + lane))

    def append(self, statement: Any) -> None:
        """Add a statement; what differs between lanes for each of them."""
        lanes = self._lanes
        if lanes is None or lanes.is_plain or not lanes.varies(statement):
            super().append(statement)
        elif self._rehearses:
            if isinstance(statement, tirx.Bind):
                lanes.note(statement.var, statement.value)
        else:
            for copy in lanes.copies(statement):
                super().append(copy)

    def bind(self, expr: Expr) -> Expr:
        """As on CPUs; it is remembered what integers stand for."""
        lanes = self._lanes
        if lanes is None:
            return self._named(expr, super().bind(expr))
        if lanes.is_plain or isinstance(expr, int | float):
            return expr
        expr = lanes.simplified(expr)
        name = super().bind(expr)
        return name if lanes.varies(expr) else self._named(expr, name)

    def _named(self, expr: Expr, name: Expr) -> Expr:
        """A name, which is remembered if it is one of an integer."""
        if name is not expr and dtype_of(name) == INDEX:
            self._names[name] = expr
        return name

    def load(self, buffer: Buffer, offset: Expr) -> Expr:
        """Element `offset` of `buffer`; those of all lanes together where they are neighbours."""
        lanes, value = self._lanes, super().load(buffer, offset)
        if lanes is None or lanes.is_plain or not lanes.varies(self.loads[-1][1]):
            return value
        offset = self.loads[-1][1]
        found = lanes.first(offset)
        if found is not None and found[1] == 0:
            return super().load(buffer, found[0])
        if found is None or not self._is_whole(buffer, *found) or not lanes.can_ask(found[0]):
            lanes.scattered.append((buffer, offset))
            return value
        lanes.whole.append(buffer)
        return self._read(buffer, found[0], lanes)

    def _is_whole(self, buffer: Buffer, start: Expr, step: int) -> bool:
        """Whether neighbouring lanes have neighbours that can be accessed together."""
        assert self._lanes is not None
        width = self._lanes.width
        each = access_bytes(width, element_size(buffer))
        return step == 1 and each > 0 and self._lanes.is_multiple(start, each // element_size(buffer))

    def _read(self, buffer: Buffer, start: Expr, lanes: Lanes) -> Expr:
        """The lane's one of the neighbours from `start`."""
        each = access_bytes(lanes.width, element_size(buffer))
        registers = self._registers(lanes.width, storage_dtype(buffer.dtype))
        count = each // element_size(buffer)
        conditions = [condition for condition in lanes.conditions if condition is not None]
        for place in range(0, lanes.width, count):
            to, source = tirx.op.address_of(registers[place]), self.address(buffer, start + place)
            if conditions:
                self.invoke(READ_WHERE[each], to, source, tirx.op.all(*conditions))
            else:
                self.invoke(READ[each], to, source)
        value = registers[lanes.lane]
        lanes.zero_elsewhere = value if conditions else None
        return tirx.NE(value, const(0, "int8")) if buffer.dtype == "bool" else value

    def store(self, buffer: Buffer, offset: Expr, value: Expr) -> None:
        """Write one element; those of all lanes together where they are neighbours."""
        lanes = self._lanes
        if self._diverted is not None and buffer is self._diverted[0]:
            self._diverted[1](tirx.Cast("int8", value) if buffer.dtype == "bool" else value)
            return
        if lanes is None or isinstance(offset, int) or not lanes.varies(offset):
            super().store(buffer, offset, value)
            return
        found = None if lanes.is_plain else lanes.first(offset)
        if found is None or not self._is_whole(buffer, *found):
            lanes.note_scattered(buffer, offset, len(self._blocks))
            super().store(buffer, offset, value)
            return
        lanes.whole.append(buffer)
        lanes.whole_writes += 1
        self.written.add(buffer)
        self._write(buffer, found[0], tirx.Cast("int8", value) if buffer.dtype == "bool" else value, lanes)

    @contextmanager
    def diverted(self, buffer: Buffer, take: Callable[[Expr], None]) -> Iterator[None]:
        """What the body stores in a buffer is given to `take` instead."""
        self._diverted = buffer, take
        try:
            yield
        finally:
            self._diverted = None

    def _write(self, buffer: Buffer, start: Expr, value: Expr, lanes: Lanes) -> None:
        each = access_bytes(lanes.width, element_size(buffer))
        registers = self._registers(lanes.width, storage_dtype(buffer.dtype))
        self.append(tirx.BufferStore(registers.storage, value, [lanes.lane]))
        for place in range(0, lanes.width, each // element_size(buffer)):
            self.invoke(
                WRITE[each], self.address(buffer, start + place), tirx.op.address_of(registers[place])
            )

    def _registers(self, size: int, dtype: str) -> Local:
        """Scratch memory that all lanes see."""
        return super().local(size, dtype)

    def local(self, size: int, dtype: str) -> Local:
        """Scratch memory, of every lane."""
        lanes = self._lanes
        if lanes is None:
            return super().local(size, dtype)
        if lanes.is_plain:
            raise Unsuited
        return LaneLocal(super().local(size * lanes.width, dtype).storage, dtype, lanes.lane, lanes.width)

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """As on CPUs; statements that only some lanes run are written out for each lane together."""
        lanes = self._lanes
        same = condition if lanes is None or condition is True else lanes.uniform(condition)
        if lanes is None or same is not None:
            with super().when(same):
                yield
            return
        if lanes.is_plain:
            raise Unsuited
        lanes.is_plain = True
        with self._block() as statements:
            yield
        lanes.is_plain = False
        self.append(
            tirx.IfThenElse(
                condition, tirx.SeqStmt(statements) if len(statements) > 1 else statements[0], None
            )
        )

    def guard(self, condition: Expr, make: Callable[[], Expr], otherwise: Expr) -> Expr:
        """As on CPUs."""
        lanes = self._lanes
        if lanes is None:
            return super().guard(condition, make, otherwise)
        same = lanes.uniform(condition)
        lanes.conditions.append(same)
        try:
            return super().guard(condition if same is None else same, make, otherwise)
        finally:
            lanes.conditions.pop()

    def either(self, condition: Expr, value: Expr, otherwise: Expr) -> Expr:
        """As on CPUs; the value alone where it has been read as zero if the condition does not hold."""
        is_zero = isinstance(otherwise, tirx.FloatImm | tirx.IntImm) and float(otherwise.value) == 0
        if is_zero and self._lanes is not None and value is self._lanes.zero_elsewhere:
            return value
        return super().either(condition, value, otherwise)

    def shared(self, size: int, dtype: str) -> Local:
        """Memory of a team, living until the innermost open block ends."""
        self._team.meets = True
        storage = tirx.decl_buffer((size,), dtype, self._name("shared"), scope="shared")
        self.append(tirx.AllocBuffer(storage, {}))
        return Local(storage, dtype)

    def overlay(self, size: int, dtype: str) -> Local:
        """Memory of a team that may be large. All that a team asks for this way begins at the same place.

        Names tell the dtype, as one text must not have two of a name that differ in it."""
        storage = tirx.decl_buffer((size,), dtype, self._name(f"overlay_{dtype}_"), scope="shared.dyn")
        self.append(tirx.AllocBuffer(storage, {}))
        self._team.meets = True
        self._team.shared = max(self._team.shared, size * np.dtype(dtype).itemsize)
        return Local(storage, dtype)

    def wait(self) -> None:
        """No thread of the team goes on before all have come here, and what they wrote to shared memory can be read."""
        self._team.meets = True
        self.append(tirx.Evaluate(tirx.op.tvm_storage_sync("shared")))

    def exchange(self, value: Expr, distance: int) -> Expr:
        """The value of the thread of the warp whose number differs by one bit, that of `distance`."""
        mask = tirx.const(ALL_LANES, "uint32")
        return self.bind(tirx.op.tvm_warp_shuffle_xor(mask, value, distance, WARP, WARP))

    def assign(self, local: Local, index: Expr, value: Expr, lanes: int = 1) -> None:
        """Write scratch memory; a broadcast value element by element."""
        if isinstance(local, LaneLocal):
            index = local.place(index)
        if not isinstance(value, tirx.Broadcast):
            super().assign(local, index, value, lanes)
            return
        for lane in range(int(value.lanes)):
            super().assign(local, index + lane, value.value)

    def invoke(self, function: Inline, *arguments: Expr) -> None:
        """Call a function of CUDA C for its effects."""
        self.functions[function] = None
        self.append(tirx.Evaluate(tirx.call_extern("int32", function.name, *arguments)))

    def address(self, buffer: Buffer, offset: Expr) -> Expr:
        """Where an element of a buffer lies."""
        return tirx.op.address_of(tirx.BufferLoad(self._declare(buffer), [offset]))

    def fold_warp(self, value: Expr, combine: Callable[[Expr, Expr], Expr], threads: int = WARP) -> Expr:
        """The values of all threads of a warp, or of so many neighbours in it, folded into one that each of them has."""
        dtype = dtype_of(value)
        distance = threads // 2
        while distance:
            value = self.bind(combine(value, tirx.Cast(dtype, self.exchange(value, distance))))
            distance //= 2
        return value


def element_size(buffer: Buffer) -> int:
    """Bytes of an element in memory."""
    return np.dtype(storage_dtype(buffer.dtype)).itemsize

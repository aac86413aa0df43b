"""Rows that a team of threads shares out: runs of neighbours, thread t those numbered t, t + team, ..., in registers while they are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const, dtype_of
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.kernels.rows import Element, Fold, Row

TEAMS = ((768, WARP), (3072, 128), (6144, 256), (16384, 512))
"""Threads that share out a row, by the longest one. Up to a warp they need no shared memory to fold it."""

SMALLEST_TEAM = 8
"""Threads that share out a row which a single run each holds."""

LARGEST_TEAM = 256
"""Of rows that are longer."""

IN_REGISTERS = 16384
"""Elements of the longest row that threads keep to themselves."""

Place = Callable[[Expr, Expr], None]
"""Takes a position of a row, and its number among those that the thread has; where these are many, among those of its run."""


def team_size(extent: int) -> int:
    """Threads that share out a row."""
    return next((team for most, team in TEAMS if extent <= most), LARGEST_TEAM)


def _team_of_runs(extent: int, width: int) -> int:
    """Threads that share out a row in runs of `width`, fewer than a warp where these are few."""
    team = team_size(extent)
    while width > 1 and SMALLEST_TEAM < team <= WARP and extent <= width * team // 2:
        team //= 2
    return team


@dataclass(frozen=True)
class Share:
    """How a team shares out `extent` positions in runs of `width`."""

    extent: int
    width: int

    team: int

    @property
    def is_few(self) -> bool:
        """Whether a thread has few elements, at most `count`."""
        return self.extent <= IN_REGISTERS

    @property
    def count(self) -> int:
        return -(-self.extent // (self.team * self.width)) * self.width

    def each(self, k: DeviceBuilder, body: Place) -> None:
        """`body` for every position, by the thread that has it."""
        team, runs, thread = self.team, self.extent // self.width, k.team(self.team)
        whole = runs // team
        if self.is_few:
            for number in range(whole):
                self._run(k, k.bind(thread + number * team), number, body)
        elif whole:
            with k.loop(whole, "serial", "round") as number:
                self._run(k, k.bind(thread + number * team), 0, body)
        if runs % team:
            with k.when(thread < runs % team):
                self._run(k, k.bind(thread + whole * team), whole if self.is_few else 0, body)

    def _run(self, k: DeviceBuilder, run: Expr, number: int, body: Place) -> None:
        with k.lanes(self.width) as lane:
            body(run * self.width + lane if self.width > 1 else run, number * self.width + lane)


def share(k: DeviceBuilder, extent: int, element: Element) -> Share:
    """The longest runs of which all that `element` reads comes with whole accesses, and that all threads of a team have."""
    least = min(team_size(extent), SMALLEST_TEAM)
    width = k.widest(extent, lambda position: k.bind(element(position)), least)
    team = k.team_size or _team_of_runs(extent, width)
    if extent < width * team:
        width = k.widest(extent, lambda position: k.bind(element(position)), team)
    k.team(team)
    return Share(extent, width, team)


def fold_team(k: DeviceBuilder, fold: Fold, dtype: str, extent: int, element: Element) -> Expr:
    """`element(0) ... element(extent - 1)` folded into one value that every thread of the team has."""
    return fold_share(k, fold, dtype, share(k, extent, element), lambda position, number: element(position))


def fold_share(
    k: DeviceBuilder, fold: Fold, dtype: str, shared_out: Share, element: Callable[[Expr, Expr], Expr]
) -> Expr:
    """The same, of positions that have been shared out; `element` takes what a `Place` does."""
    width = shared_out.width
    partial = k.local(width, dtype)
    for lane in range(width):
        k.assign(partial, lane, const(fold.initial(dtype), dtype))

    def add(position: Expr, number: Expr) -> None:
        at = tirx.op.floormod(number, width)
        k.assign(partial, at, fold.combine(partial[at], element(position, number)))

    shared_out.each(k, add)
    parts = [k.bind(partial[lane]) for lane in range(width)]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [k.bind(fold.combine(a, b)) for a, b in zip(parts[:half], parts[half:], strict=True)]
    team = shared_out.team
    total = k.fold_warp(parts[0], fold.combine, min(team, WARP))
    return total if team <= WARP else _across_warps(k, fold, total, k.team(team), team // WARP)


def _across_warps(k: DeviceBuilder, fold: Fold, value: Expr, thread: Expr, warps: int) -> Expr:
    dtype = dtype_of(value)
    totals = k.shared(warps, dtype)
    with k.when(tirx.op.floormod(thread, WARP) == 0):
        k.assign(totals, tirx.op.floordiv(thread, WARP), value)
    k.wait()
    total = k.local(1, dtype)
    k.assign(total, 0, totals[0])
    for warp in range(1, warps):
        k.assign(total, 0, fold.combine(total[0], totals[warp]))
    return k.bind(total[0])


class TeamRow(Row):
    """A row of which every thread of a team reads and writes its own elements, in registers or, where it is long, in memory."""

    def __init__(
        self,
        k: KernelBuilder,
        extent: int,
        dtype: str,
        lanes: int,
        memory: Buffer | Local | None,
        start: Expr = 0,
    ) -> None:
        assert isinstance(k, DeviceBuilder)
        self.k = self.device = k
        self.extent = self.padded = extent
        self.dtype, self.lanes, self.start = dtype, 1, start
        if memory is not None:
            self.memory = memory
        self.share = Share(extent, 1, team_size(extent))
        self._number: Expr = 0
        """Of the element at hand among those of the thread."""

    def load(self, element: Element, vectorise: bool = True) -> None:
        self.share = share(self.device, self.extent, element)
        if self.share.is_few:
            self.memory = self.device.local(self.share.count, self.dtype)
        self._each(lambda p: self.assign(p, element(p)))

    def __getitem__(self, position: Expr) -> Expr:
        """The element at the position at hand."""
        return self.memory[self._number] if isinstance(self.memory, Local) else super().__getitem__(position)

    def assign(self, position: Expr, value: Expr) -> None:
        if isinstance(self.memory, Local):
            self.device.assign(self.memory, self._number, value)
        else:
            super().assign(position, value)

    def fold(self, fold: Fold, element: Element) -> Expr:
        def at(position: Expr, number: Expr) -> Expr:
            self._number = number
            return element(position)

        return fold_share(self.device, fold, self.dtype, self.share, at)

    def replace(self, change: Callable[[Expr], Expr]) -> None:
        self._each(lambda p: self.assign(p, change(self[p])))

    def each(self, body: Callable[[Expr, Expr], None]) -> None:
        self._each(lambda p: body(p, self[p]))

    def _each(self, body: Callable[[Expr], None]) -> None:
        def at(position: Expr, number: Expr) -> None:
            self._number = number
            body(position)

        self.share.each(self.device, at)

"""Rows that a team of threads shares out: thread t has the elements t, t + team, ... in shared memory."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const, dtype_of
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.kernels.rows import Element, Fold, Row

LARGEST_TEAM = 256

SHORT = 512
"""Elements up to which one warp has a row for itself and needs no shared memory to fold it."""


def team_size(extent: int) -> int:
    """Threads that share out a row."""
    return WARP if extent <= SHORT else LARGEST_TEAM


def share_out(k: DeviceBuilder, extent: int, body: Callable[[Expr], None]) -> None:
    """`body` for every position, by the thread that has it."""
    team = team_size(extent)
    thread = k.team(team)
    if extent >= team:
        with k.loop(extent // team, "serial", "round") as number:
            body(number * team + thread)
    if extent % team:
        with k.when(thread < extent % team):
            body(extent // team * team + thread)


def fold_team(k: DeviceBuilder, fold: Fold, dtype: str, extent: int, element: Element) -> Expr:
    """`element(0) ... element(extent - 1)` folded into one value that every thread of the team has."""
    team = team_size(extent)
    thread = k.team(team)
    partial = k.local(1, dtype)
    k.assign(partial, 0, const(fold.initial(dtype), dtype))
    share_out(k, extent, lambda p: k.assign(partial, 0, fold.combine(partial[0], element(p))))
    total = k.fold_warp(k.bind(partial[0]), fold.combine)
    return total if team == WARP else _across_warps(k, fold, total, thread, team // WARP)


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
    """A row of which every thread of a team reads and writes its own elements."""

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
        self.device = k
        k.team(team_size(extent))
        if memory is None:
            memory, start = k.shared(max(extent, 1), dtype), 0
        super().__init__(k, extent, dtype, 1, memory, start)

    def load(self, element: Element, vectorise: bool = True) -> None:
        share_out(self.device, self.extent, lambda p: self.assign(p, element(p)))

    def fold(self, fold: Fold, element: Element) -> Expr:
        return fold_team(self.device, fold, self.dtype, self.extent, element)

    def replace(self, change: Callable[[Expr], Expr]) -> None:
        share_out(self.device, self.extent, lambda p: self.assign(p, change(self[p])))

    def each(self, body: Callable[[Expr, Expr], None]) -> None:
        share_out(self.device, self.extent, lambda p: body(p, self[p]))

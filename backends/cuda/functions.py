"""The functions that a GPU runs for a finished kernel: one launch a grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tvm import ir, tirx

from graphopt.backends.codegen.builder import INDEX, KernelBuilder
from graphopt.backends.codegen.function import pointer
from graphopt.backends.codegen.program import Launch
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.grid import Grid
from graphopt.backends.lower.machine import Function
from graphopt.backends.lower.operator import Refused

THREADS = 128
"""Of a block whose threads have nothing to do with each other."""

FEW = 16384
"""Iterations of a grid up to which blocks are as small as a warp, so that more multiprocessors have some."""

SMALL = 32

WARPS = ((16384, 8), (1024, 4))
"""Warps of a block that has several teams, by the least number of teams: more of them are on a multiprocessor at a time."""

MOST_ARGUMENTS = 256
"""Of a kernel, and tensors of a model: as many as the runtime has room for."""

DEFINITIONS = "graphopt.definitions"
"""The attribute with the functions of CUDA C that a kernel calls."""

CLUSTER = "graphopt.cluster"
"""That with the number of neighbouring blocks that see each other's shared memory."""


def device_functions(builder: KernelBuilder) -> list[Function]:
    """A function for every grid of a kernel. What is not a sequence of grids runs on a single thread, in order.

    Raises Refused where grids that need teams stand among other statements, and for too many buffers.
    """
    assert isinstance(builder, DeviceBuilder)
    names = [step for step in builder.steps if isinstance(step, tirx.Bind)]
    grids = [step for step in builder.steps if isinstance(step, Grid)]
    if len(names) + len(grids) == len(builder.steps):
        return [_function(builder, [*names, *_body(grid)], _launch(grid), grid.cluster) for grid in grids]
    if any(grid.team is not None for grid in grids):
        raise Refused("its kernel mixes the work of teams with that of one thread")
    return [_function(builder, [_serial(step) for step in builder.steps], Launch(1, 1))]


def _launch(grid: Grid) -> Launch:
    if grid.team is not None:
        teams = 1 if grid.is_apart else _warps(grid.extent) * max(WARP // grid.threads, 1)
        return Launch(-(-grid.extent // teams), grid.threads * teams, grid.shared)
    threads = SMALL if grid.extent <= FEW else THREADS
    return Launch(-(-grid.extent // threads), threads)


def _warps(teams: int) -> int:
    """How many a block has whose teams are a warp each, or less."""
    return next((warps for least, warps in WARPS if teams >= least), 1)


def _body(grid: Grid) -> list[Any]:
    """The statements of one thread."""
    launch = _launch(grid)
    block, thread = tirx.Var("block", INDEX), tirx.Var("thread", INDEX)
    if grid.team is not None:
        teams, size = launch.threads // grid.threads, tirx.const(grid.threads, INDEX)
        number = block * teams + tirx.op.floordiv(thread, size)
        if grid.threads < WARP and not grid.is_apart:
            last = tirx.op.min(number, tirx.const(grid.extent - 1, INDEX))
            numbers = [tirx.Bind(grid.variable, last), tirx.Bind(grid.team, tirx.op.floormod(thread, size))]
            return [_bound(block, thread, launch, [*numbers, _sequence(grid.statements)])]
        numbers = [tirx.Bind(grid.variable, number), tirx.Bind(grid.team, tirx.op.floormod(thread, size))]
        return [_bound(block, thread, launch, [*numbers, _existing(grid, teams)])]
    number = tirx.Bind(grid.variable, block * launch.threads + thread)
    return [_bound(block, thread, launch, [number, _existing(grid, launch.threads)])]


def _existing(grid: Grid, iterations: int) -> Any:
    """What an iteration does, if it is one; a block has so many."""
    work = _sequence(grid.statements)
    return tirx.IfThenElse(grid.variable < grid.extent, work, None) if grid.extent % iterations else work


def _bound(block: Any, thread: Any, launch: Launch, statements: Sequence[Any]) -> Any:
    body = _sequence(statements)
    for variable, axis, extent in (
        (thread, "threadIdx.x", launch.threads),
        (block, "blockIdx.x", launch.blocks),
    ):
        index = tirx.IterVar(ir.Range(0, extent), variable, tirx.IterVar.ThreadIndex, axis)
        body = tirx.AttrStmt(index, "thread_extent", tirx.const(extent, INDEX), body)
    return body


def _serial(step: Any) -> Any:
    """A grid as a loop."""
    if not isinstance(step, Grid):
        return step
    zero, extent = tirx.const(0, INDEX), tirx.const(step.extent, INDEX)
    return tirx.For(step.variable, zero, extent, tirx.ForKind.SERIAL, _sequence(step.statements))


def _function(
    builder: DeviceBuilder, statements: Sequence[Any], launch: Launch, cluster: int = 1
) -> Function:
    buffers = list(builder.buffers)
    if len(buffers) > MOST_ARGUMENTS:
        raise Refused(f"its kernel reads and writes more than {MOST_ARGUMENTS} tensors")
    pointers = [pointer(f"p{i}", buffer.dtype) for i, buffer in enumerate(buffers)]
    views = [
        tirx.DeclBuffer(builder.buffers[buffer], data=p) for buffer, p in zip(buffers, pointers, strict=True)
    ]
    function = tirx.PrimFunc(pointers, _sequence([*views, *statements]), ir.PrimType("void"))
    definitions = json.dumps([inline.definition for inline in builder.functions])
    function = function.with_attr({"tirx.noalias": True, DEFINITIONS: definitions, CLUSTER: cluster})
    return Function(function, buffers, launch)


def _sequence(statements: Sequence[Any]) -> Any:
    if not statements:
        return tirx.Evaluate(tirx.const(0, INDEX))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))

"""Builds candidates: several kernels, each a program of its own, in one library next to a program that empties the caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tvm import tirx

from graphopt.backends.codegen.builder import KernelBuilder, const
from graphopt.backends.codegen.glue import glue_source
from graphopt.backends.codegen.link import link
from graphopt.backends.codegen.llvm import generate
from graphopt.backends.codegen.memory import MemoryPlan, place_temporaries
from graphopt.backends.codegen.program import Program, Role
from graphopt.backends.schedules.choice import FAMILIES
from graphopt.backends.schedules.standalone import Standalone
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import Target
from graphopt.backends.tune.protocol import Built

PARTS = 64
"""Parts of that memory, shared out among the threads."""


@dataclass(frozen=True)
class Candidate:
    """A schedule to be measured."""

    workload: Workload
    config: Config


def build(candidates: Sequence[Candidate], target: Target, flush_bytes: int, path: Path) -> Built:
    """Write the library of some candidates to `path`."""
    made = [FAMILIES[c.workload.family].standalone(c.workload, c.config, target.core) for c in candidates]
    if target.device:
        return _build_for_device(made, target, path)
    programs = [_flush(flush_bytes, target.lanes), *(standalone.program for standalone in made)]
    plans = [_plan(program) for program in programs]
    code = generate(programs, plans, target.llvm())
    link(code.objects, glue_source(programs, plans), path, target.compiler)
    return Built(
        path,
        [[buffer.nbytes for buffer in program.inputs] for program in programs],
        [[buffer.nbytes for buffer in program.outputs] for program in programs],
        max(plan.weights_bytes for plan in plans),
        [standalone.share for standalone in made],
    )


def _build_for_device(made: Sequence[Standalone], target: Target, path: Path) -> Built:
    """The same for a GPU, whose caches the process that measures empties; the first program does nothing."""
    from graphopt.backends.cuda.compiler import compile_for_device

    programs = [Standalone().program, *(standalone.program for standalone in made)]
    plans = [_plan(program) for program in programs]
    weights = max(plan.weights_bytes for plan in plans)
    plans = [replace(plan, weights_bytes=weights) for plan in plans]
    code = compile_for_device(programs, plans, target.device, target.compiler, lambda stage: None)
    path.write_bytes(code.shared)
    return Built(
        path,
        [[buffer.nbytes for buffer in program.inputs] for program in programs],
        [[buffer.nbytes for buffer in program.outputs] for program in programs],
        weights,
        [standalone.share for standalone in made],
        programs[1].outputs[0].dtype,
    )


def _plan(program: Program) -> MemoryPlan:
    """Every program has its weights at the beginning: their values do not matter."""
    constants = [
        buffer for kernel in program.kernels() for buffer in kernel.buffers if buffer.role is Role.CONSTANT
    ]
    weights = max((buffer.nbytes for buffer in constants), default=0)
    return MemoryPlan(*place_temporaries(program), dict.fromkeys(constants, 0), weights)


def _flush(size: int, lanes: int) -> Program:
    """Sums up memory on all threads."""
    flush = Standalone()
    vectors = max(size // (4 * lanes * PARTS), 1)
    source, out = flush.input(vectors * lanes * PARTS), flush.output(PARTS * lanes)

    def emit(k: KernelBuilder) -> None:
        with k.loop(PARTS, "parallel", "part") as part:
            total = k.local(lanes, "float32")
            k.assign(total, 0, tirx.Broadcast(const(0.0, "float32"), lanes), lanes)
            with k.loop(vectors, "serial", "vector") as vector:
                value = k.load_vector(source, (part * vectors + vector) * lanes, lanes)
                k.assign(total, 0, k.read_vector(total, 0, lanes) + value, lanes)
            k.store_vector(out, part * lanes, k.read_vector(total, 0, lanes), lanes)

    flush.emit(emit)
    return flush.program

"""What there is to tune in a model: its distinct workloads, and how often each is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.backends.codegen.program import Role
from graphopt.backends.lower.graph import CPU, lower_model
from graphopt.backends.lower.machine import Machine
from graphopt.backends.schedules.choice import Recorder
from graphopt.backends.schedules.workload import Workload
from graphopt.backends.targets import Target


@dataclass(frozen=True)
class Task:
    """A workload that a model computes `count` times."""

    workload: Workload
    count: int


@dataclass(frozen=True)
class Tasks:
    """The tasks of a model, and the bytes of all its weights."""

    tasks: list[Task]
    weights_bytes: int


def extract(models: Sequence[ir.Model], target: Target) -> Tasks:
    """The tasks of all shape variants. Raises UnsupportedError for models that cannot be lowered."""
    recorder = Recorder()
    programs = [lower_model(model, target.core, recorder, _machine(target)) for model in models]
    buffers = {buffer for program in programs for kernel in program.kernels() for buffer in kernel.buffers}
    weights = sum(buffer.nbytes for buffer in buffers if buffer.role is Role.CONSTANT)
    return Tasks([Task(workload, count) for workload, count in recorder.workloads.items()], weights)


def _machine(target: Target) -> Machine:
    if not target.device:
        return CPU
    from graphopt.backends.cuda.machine import GPU

    return GPU

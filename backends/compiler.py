"""Compiles models with fixed shapes into one library: lower, plan memory, generate code, link."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt.artifacts.coding import Segment
from graphopt.backends.codegen.glue import glue_source
from graphopt.backends.codegen.link import link
from graphopt.backends.codegen.llvm import generate
from graphopt.backends.codegen.memory import MemoryPlan, plan_memory, weights_blob, weights_segments
from graphopt.backends.codegen.program import Kernel, Program
from graphopt.backends.codegen.toolchain import require_compiler
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.schedules.choice import Schedules
from graphopt.backends.targets import Target
from graphopt.errors import TargetError

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Library:
    """What goes into an artifact: shared library, weights, and a description of every shape variant."""

    shared: bytes
    """Linked from `objects`, `glue` (in C) and the runtime; empty for machines that have no shared libraries."""
    objects: Sequence[bytes]
    glue: str
    weights: bytes
    segments: Sequence[Segment]
    """The constants among the weights."""
    variants: list[dict[str, Any]]
    kernels: int
    """Distinct kernels."""
    layers: list[dict[str, Any]]
    """Kernel calls of the first variant in order: kind of kernel, its symbol, the nodes it computes, their MACs, whether those are
    of integers, bytes of its buffers, the workload that its schedule was chosen for, if any, and
    its threads on a GPU."""


def compile_models(
    models: Sequence[ir.Model],
    target: Target,
    progress: Progress = lambda stage: None,
    profile: bool = False,
    schedules: Schedules | None = None,
) -> Library:
    """Compile shape variants of one model. With `profile` (one variant only) the library measures each kernel.

    Schedules are chosen by rules unless somebody else is given.

    Raises UnsupportedError listing every node that cannot be lowered, TargetError without a C compiler.
    """
    require_compiler(target.compiler)
    made = (_for_device if target.device else _for_cpu)(models, target, progress, profile, schedules)
    programs, plans = made.programs, made.plans
    variants = [
        _describe(model, program, plan.arena_bytes)
        for model, program, plan in zip(models, programs, plans, strict=True)
    ]
    layers = [_layer(kernel, made.symbols[kernel]) for kernel in programs[0].kernels()]
    kernels = len(set(made.symbols.values()))
    weights, segments = weights_blob(plans[0]), weights_segments(plans[0])
    return Library(made.shared, made.objects, made.glue, weights, segments, variants, kernels, layers)


@dataclass(frozen=True)
class _Made:
    """Programs, where their memory lies, and their code."""

    programs: Sequence[Program]
    plans: Sequence[MemoryPlan]
    shared: bytes
    objects: Sequence[bytes]
    glue: str
    symbols: Mapping[Kernel, str]


def _for_cpu(
    models: Sequence[ir.Model],
    target: Target,
    progress: Progress,
    profile: bool,
    schedules: Schedules | None,
) -> _Made:
    progress("lower")
    programs = [lower_model(model, target.core, schedules) for model in models]
    plans = plan_memory(programs)
    code = generate(programs, plans, target.llvm(), progress, profile)
    progress("link")
    glue = glue_source(programs, plans, profile)
    shared = _link(code.objects, glue, target) if target.platform.hosted else b""
    return _Made(programs, plans, shared, code.objects, glue, code.symbols)


def _for_device(
    models: Sequence[ir.Model],
    target: Target,
    progress: Progress,
    profile: bool,
    schedules: Schedules | None,
) -> _Made:
    """Raises TargetError for a profile."""
    from graphopt.backends.cuda.compiler import compile_for_device
    from graphopt.backends.cuda.machine import GPU

    if profile:
        raise TargetError(f"{target.name}: kernels on GPUs cannot be profiled yet")
    progress("lower")
    programs = [lower_model(model, target.core, schedules, GPU) for model in models]
    plans = plan_memory(programs)
    code = compile_for_device(programs, plans, target.device, target.compiler, progress)
    return _Made(programs, plans, code.shared, [], code.glue, code.symbols)


def _link(objects: Sequence[bytes], glue: str, target: Target) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        link(objects, glue, path, target.compiler)
        return path.read_bytes()


def _layer(kernel: Kernel, symbol: str) -> dict[str, Any]:
    facts = {
        "kernel": kernel.name,
        "symbol": symbol,
        "nodes": kernel.layer,
        "macs": kernel.macs,
        "integer": kernel.integer,
        "bytes": kernel.nbytes,
    }
    if kernel.launch is not None:
        facts["threads"] = kernel.launch.blocks * kernel.launch.threads
    return facts if kernel.workload is None else {**facts, "workload": str(kernel.workload)}


def _describe(model: ir.Model, program: Program, workspace_bytes: int) -> dict[str, Any]:
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    return {
        "inputs": [
            _tensor(value, buffer.dtype) for value, buffer in zip(inputs, program.inputs, strict=True)
        ],
        "outputs": [
            _tensor(value, buffer.dtype)
            for value, buffer in zip(model.graph.outputs, program.outputs, strict=True)
        ],
        "workspace_bytes": workspace_bytes,
    }


def _tensor(value: ir.Value, dtype: str) -> dict[str, Any]:
    assert value.shape is not None
    return {"name": value.name, "shape": list(value.shape.numpy()), "dtype": dtype}

"""Compiles programs of launches into one library: CUDA C, machine code, and the runtime of GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphopt.backends.codegen.link import link
from graphopt.backends.codegen.llvm import distinct_kernels
from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Kernel, Program
from graphopt.backends.codegen.toolchain import GPU_SOURCES
from graphopt.backends.cuda.functions import MOST_ARGUMENTS
from graphopt.backends.cuda.glue import glue_source
from graphopt.backends.cuda.nvcc import compile_cubins
from graphopt.backends.cuda.source import cuda_source, kernels_wait
from graphopt.errors import TargetError

CHUNK = 16
"""Kernels in one text, which share the time that the compiler needs to start."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DeviceCode:
    """The linked library, its glue in C, and the symbol of every kernel, of which equal ones share one."""

    shared: bytes
    glue: str
    symbols: Mapping[Kernel, str]


def compile_for_device(
    programs: Sequence[Program], plans: Sequence[MemoryPlan], arch: str, cc: str, progress: Progress
) -> DeviceCode:
    """The library of all programs for an architecture such as `sm_90`. Raises TargetError without compilers, and for too many
    inputs and outputs.
    """
    if any(len(program.inputs) + len(program.outputs) > MOST_ARGUMENTS for program in programs):
        raise TargetError(f"models for GPUs have at most {MOST_ARGUMENTS} inputs and outputs")
    symbols, functions = distinct_kernels(programs)
    names = list(functions)
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    sources = [cuda_source({name: functions[name] for name in chunk}, arch) for chunk in chunks]
    progress(f"compile: {len(names)} kernels")
    cubins = compile_cubins(sources, arch)
    progress("link")
    with tempfile.TemporaryDirectory(prefix="graphopt-cuda-") as name:
        folder = Path(name)
        images = [(folder / f"{number}.cubin", chunk) for number, chunk in enumerate(chunks)]
        for (path, _), cubin in zip(images, cubins, strict=True):
            path.write_bytes(cubin)
        glue = glue_source(programs, plans, images, symbols, kernels_wait(arch))
        library = folder / "library.so"
        link([], glue, library, cc, sources=GPU_SOURCES)
        return DeviceCode(library.read_bytes(), glue, symbols)

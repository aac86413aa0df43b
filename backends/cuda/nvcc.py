"""NVIDIA's compiler: where it is, and CUDA C to machine code."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graphopt.backends.codegen.toolchain import run_tool
from graphopt.errors import TargetError

HINT = "install NVIDIA's CUDA toolkit, or name its folder in CUDA_HOME"

FLAGS = ("-cubin", "-O3", "-std=c++17", "-Wno-deprecated-gpu-targets", "-diag-suppress=177,550,1046")


OWN_INSTRUCTIONS = {"sm_90": "sm_90a"}
"""Architectures of which all GPUs run code that uses instructions of theirs alone."""


def find_nvcc() -> str | None:
    """The path of the compiler; None where there is none."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(home) / "bin") for home in homes if home]
    found = (shutil.which("nvcc", path=folder) for folder in [*folders, None])
    return next((path for path in found if path is not None), None)


def require_nvcc() -> str:
    """Raises TargetError where the compiler is not installed."""
    path = find_nvcc()
    if path is None:
        raise TargetError(f"no CUDA compiler: nvcc is not installed; {HINT}")
    return path


def code_for(arch: str) -> list[str]:
    """The options that name an architecture. Instructions that no later one has are told apart by a letter."""
    name = OWN_INSTRUCTIONS.get(arch, arch).removeprefix("sm_")
    return [f"-gencode=arch=compute_{name},code=sm_{name}"]


def compile_cubins(sources: Sequence[str], arch: str) -> list[bytes]:
    """The machine code of each text, for an architecture such as `sm_90`. Raises TargetError."""
    nvcc = require_nvcc()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda source: _cubin(nvcc, source, arch), sources))


def _cubin(nvcc: str, source: str, arch: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="graphopt-cuda-") as name:
        folder = Path(name)
        (folder / "kernels.cu").write_text(source)
        run_tool([nvcc, *FLAGS, *code_for(arch), "-o", "kernels.cubin", "kernels.cu"], folder)
        return (folder / "kernels.cubin").read_bytes()

"""NVIDIA's compiler: where it is, in a toolkit or in packages of Python, and CUDA C to machine code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from graphopt.backends.codegen.toolchain import run_tool
from graphopt.errors import TargetError

HINT = "pip install 'graphopt[cuda]', or install NVIDIA's CUDA toolkit and name its folder in CUDA_HOME"

HOST = "g++"
"""What nvcc reads C++ with before it compiles."""

HOST_HINT = f"nvcc needs {HOST}; on Debian: apt-get install g++"

WHEELS = "cu*/bin"
"""Where packages of Python put nvcc, beneath their common folder `nvidia`."""

FLAGS = ("-cubin", "-O3", "-std=c++17", "-Wno-deprecated-gpu-targets", "-diag-suppress=177,550,1046")


OWN_INSTRUCTIONS = {"sm_90": "sm_90a"}
"""Architectures of which all GPUs run code that uses instructions of theirs alone."""


def find_nvcc() -> str | None:
    """The path of the compiler: that of CUDA_HOME, of the machine, or of Python's packages; None where there is none."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(home) / "bin") for home in homes if home]
    found = (shutil.which("nvcc", path=folder) for folder in [*folders, None, *package_folders()])
    return next((path for path in found if path is not None), None)


def package_folders() -> list[str]:
    """The folders of wheels such as nvidia-cuda-nvcc, the newest toolkit first."""
    spec = find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations or ())
    return [str(folder) for root in roots for folder in sorted(Path(root).glob(WHEELS), reverse=True)]


def missing_nvcc() -> str | None:
    """What to do where code for GPUs cannot be compiled; None where it can."""
    if find_nvcc() is None:
        return HINT
    return None if shutil.which(HOST) else HOST_HINT


def require_nvcc() -> str:
    """Raises TargetError where the compiler, or what it needs, is not installed."""
    path = find_nvcc()
    if path is None:
        raise TargetError(f"no CUDA compiler: nvcc is not installed; {HINT}")
    if (missing := missing_nvcc()) is not None:
        raise TargetError(f"no CUDA compiler: {missing}")
    return path


def describe_nvcc() -> str:
    """Version and path of the compiler, or how to get one."""
    if (missing := missing_nvcc()) is not None:
        return f"not installed: {missing}"
    path = require_nvcc()
    text = subprocess.run([path, "--version"], check=False, capture_output=True, text=True).stdout
    version = re.search(r"release \S+, V(\S+)", text)
    return f"{version[1] if version else 'unknown version'} ({path})"


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

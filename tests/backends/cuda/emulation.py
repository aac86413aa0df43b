"""A GPU to test on where there is none: a driver that runs the same CUDA C, compiled for this machine, with fibers as threads."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

from graphopt.backends.cuda import compiler
from graphopt_runtime import gpu

HERE = Path(__file__).parent / "emulator"
CXX = "g++"
FLAGS = (
    *("-std=c++17", "-shared", "-fPIC", "-s", "-Wl,--build-id=none", "-O2", "-w"),
    *("-march=native", "-ffp-contract=fast", "-fno-strict-aliasing", f"-I{HERE}"),
)
"""Products and sums become multiply-adds, as nvcc makes them: sigmoid near zero depends on it."""
KERNEL = re.compile(
    r"__global__ void (?:__launch_bounds__\(\d+\) )?(?:__cluster_dims__\((\d), 1, 1\) )?(\w+)\(([^)]*)\) \{"
)
OVERLAY = re.compile(r"extern __shared__ __align__\(1024\) ([\w ]+?) (\w+)\[\];")
FIRST_OF_TVM = "#if"
"""With which what TVM prints begins."""
AMPERE, HOPPER = 8, 9
"""Generations of GPUs."""
WIDTH = 8
"""Bytes of the length that stands before an image."""


def missing() -> str | None:
    """Why nothing can be emulated here."""
    return None if shutil.which(CXX) else f"{CXX} is not installed"


@cache
def folder() -> Path:
    """Where the emulated driver lies, until this process ends."""
    made = Path(tempfile.mkdtemp(prefix="graphopt-driver-"))
    atexit.register(_remove, made, os.getpid())
    command = [
        CXX,
        *FLAGS,
        f"-Wl,-soname,{gpu.DRIVER}",
        "-o",
        str(made / gpu.DRIVER),
        str(HERE / "driver.cpp"),
    ]
    subprocess.run(command, check=True)
    return made


def _remove(made: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(made)


@cache
def driver() -> ctypes.CDLL:
    """The emulated driver, which the loader then knows by the name of NVIDIA's."""
    return ctypes.CDLL(str(folder() / gpu.DRIVER), ctypes.RTLD_GLOBAL)


def images(sources: Sequence[str], arch: str) -> list[bytes]:
    """What stands for cubins: a shared library for each text, behind its length."""
    return [_image(source) for source in sources]


def _image(source: str) -> bytes:
    counts = "".join(
        f'extern "C" {{ int {name}_parameters = {parameters.count("*")}; unsigned {name}_cluster = {cluster or 1}; }}\n'
        for cluster, name, parameters in KERNEL.findall(source)
    )
    with tempfile.TemporaryDirectory() as name:
        text, library = Path(name) / "kernels.cpp", Path(name) / "kernels.so"
        text.write_text(emulable(source) + counts)
        command = [CXX, *FLAGS, "-include", "kernel.h", "-o", str(library), str(text)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
        code = library.read_bytes()
    return len(code).to_bytes(WIDTH, "little") + code


def emulable(source: str) -> str:
    """The text without the definitions of instructions, for which `kernel.h` has others."""
    kernels = source[source.index(FIRST_OF_TVM) :]
    kernels = OVERLAY.sub(r"\1 *\2 = (\1 *)emulated_shared;", kernels)
    return kernels.replace("__shared__ alignas(64)", "alignas(64) static")


@contextmanager
def emulated_compiler() -> Iterator[None]:
    """Within it the code of GPUs is made by `images`."""
    original = compiler.compile_cubins
    compiler.compile_cubins = images
    try:
        yield
    finally:
        compiler.compile_cubins = original


@contextmanager
def emulated_gpu(memory: int = 1 << 40, generation: int = HOPPER) -> Iterator[None]:
    """Within it this machine has a GPU of sm_90 or another generation, with so many bytes of memory, and so have processes
    that are started."""
    driver().emulated_enable.restype = ctypes.c_size_t
    before = driver().emulated_enable(ctypes.c_size_t(memory))
    gpu.architectures.cache_clear()
    earlier = driver().emulated_generation(generation)
    variables = {
        "LD_LIBRARY_PATH": str(folder()),
        "GRAPHOPT_EMULATED_MEMORY": str(memory),
        "GRAPHOPT_EMULATED_GENERATION": str(generation),
    }
    try:
        with emulated_compiler(), mock.patch.dict(os.environ, variables):
            yield
    finally:
        driver().emulated_enable(ctypes.c_size_t(before))
        driver().emulated_generation(earlier)
        gpu.architectures.cache_clear()

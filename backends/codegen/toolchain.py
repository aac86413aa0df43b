"""C compilers and the programs around them: which there are, what they are told, and how they are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

from graphopt.backends.codegen import ndk
from graphopt.errors import TargetError

DEFAULT_CC = "cc"

PACKAGES = {
    "cc": "gcc libc6-dev",
    "gcc": "gcc libc6-dev",
    "clang": "clang libc6-dev",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "x86_64-linux-gnu-gcc": "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
}
"""C compiler -> the Debian packages that bring it."""

HINTS = {
    **{cc: f"on Debian: apt-get install {packages}" for cc, packages in PACKAGES.items()},
    ndk.COMPILER: ndk.HINT,
}
"""C compiler -> where it comes from."""

COMPILE_FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections")

MACHINE_FLAGS = {
    "arm-linux-gnueabihf-gcc": ("-march=armv7-a+neon-vfpv4",),
    "arm-none-eabi-gcc": ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
}
"""What a compiler is told of the machine; most need not be told."""

LINKER_FLAGS = {ndk.COMPILER: ndk.LINKER_FLAGS}
"""What its linker is told besides."""

SOURCES = (
    "model.c",
    "errors.c",
    "half.c",
    "memory.c",
    "tvm_abi.c",
    "pool.c",
    "shares.c",
    "workers.c",
    "placement.c",
    "fork.c",
)
"""The C runtime."""

GPU_SOURCES = ("gpu_model.c", "gpu_call.c", "gpu_launch.c", "gpu_workspace.c", "gpu_driver.c")
"""That of models on NVIDIA's GPUs."""

WITHOUT_FORKS = tuple("fork_none.c" if source == "fork.c" else source for source in SOURCES)
"""That of programs that do not fork."""

SINGLE_THREAD = ("model.c", "errors.c", "half.c", "memory.c", "tvm_abi.c", "pool_single.c")
"""That of systems without threads."""

BARE = ("bare.c", "errors.c")
"""That of machines without an operating system: models run in memory of their callers."""


def require_compiler(cc: str) -> None:
    """Raises TargetError where a compiler is not installed."""
    if missing_compiler(cc) is not None:
        raise TargetError(_no_compiler(cc))


def missing_compiler(cc: str) -> str | None:
    """What to do about a compiler that is not installed; None where it is."""
    if shutil.which(cc) is not None:
        return None
    return HINTS.get(Path(cc).name, "install it or name another compiler")


def companion(cc: str, name: str) -> str:
    """A program of a compiler's binutils, such as `ar`: a cross compiler has its own, next to the NDK's are LLVM's."""
    if Path(cc).name == ndk.COMPILER:
        return str(Path(cc).with_name(f"llvm-{name}"))
    prefix, separator, _ = cc.rpartition("-")
    return f"{prefix}{separator}{name}"


def linker_flags(cc: str) -> tuple[str, ...]:
    """What a compiler is told when it makes shared libraries."""
    return LINKER_FLAGS.get(Path(cc).name, ())


def thread_flags(sources: Sequence[str]) -> list[str]:
    """What compiler and linker are told where the runtime has threads."""
    return ["-pthread"] if "workers.c" in sources else []


def compile_sources(cc: str, sources: Sequence[str], folder: Path, *flags: str) -> list[str]:
    """Compile C or assembly files of `folder`, and give the names of the objects. Raises TargetError."""
    machine = MACHINE_FLAGS.get(Path(cc).name, ())
    run_tool([cc, *COMPILE_FLAGS, *machine, *flags, f"-I{csrc()}", "-c", *sources], folder)
    return [f"{Path(source).stem}.o" for source in sources]


@lru_cache
def runtime_objects(
    cc: str = DEFAULT_CC, sources: tuple[str, ...] = SOURCES
) -> tuple[tuple[str, bytes], ...]:
    """The C runtime: object file name and contents of each source. Compiled once per process. Raises TargetError."""
    with tempfile.TemporaryDirectory(prefix="graphopt-runtime-") as name:
        folder = Path(name)
        paths = [str(csrc() / source) for source in sources]
        names = compile_sources(cc, paths, folder, *thread_flags(sources))
        return tuple((name, (folder / name).read_bytes()) for name in names)


@lru_cache
def device_program(cc: str = DEFAULT_CC) -> bytes:
    """The program that runs compiled models for a host (csrc/device.c). Compiled once per process. Raises TargetError."""
    with tempfile.TemporaryDirectory(prefix="graphopt-device-") as name:
        folder = Path(name)
        [compiled] = compile_sources(cc, [str(csrc() / "device.c")], folder)
        run_tool([cc, "-Wl,-s", "-o", "device", compiled, "-ldl"], folder)
        return (folder / "device").read_bytes()


def csrc() -> Path:
    """The folder of the C runtime."""
    return Path(str(resources.files("graphopt_runtime"))) / "csrc"


def run_tool(command: Sequence[str], folder: Path) -> None:
    """Run a compiler, a linker or the like in `folder`. Raises TargetError where it is missing or fails."""
    inside = {**os.environ, "TMPDIR": str(folder)}  # an interrupted compiler leaves its temporary files there
    try:
        result = subprocess.run(
            command, check=False, cwd=folder, env=inside, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise TargetError(_no_compiler(command[0])) from error
    if result.returncode == 0:
        return
    unknown = sorted(set(re.findall(r"undefined reference to `([^']+)'", result.stderr)))
    what = f"undefined symbols {', '.join(unknown)}" if unknown else result.stderr.strip()[-2000:]
    raise TargetError(f"{command[0]} could not build the model's library: {what}")


def _no_compiler(cc: str) -> str:
    return f"no C compiler: {cc!r} cannot be run; {missing_compiler(cc) or 'it is no program'}"

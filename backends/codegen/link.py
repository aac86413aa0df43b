"""Links the object of a compiled model, its generated glue and the C runtime into one shared library."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

from graphopt.artifact import replacing
from graphopt.errors import TargetError

DEFAULT_CC = "cc"

PACKAGES = {
    "cc": "gcc libc6-dev",
    "gcc": "gcc libc6-dev",
    "clang": "clang libc6-dev",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "x86_64-linux-gnu-gcc": "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
}
"""C compiler -> the Debian packages that bring it."""

COMPILE_FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections")
MACHINE_FLAGS = {"arm-linux-gnueabihf-gcc": ("-march=armv7-a+neon-vfpv4",)}
"""What a compiler is told of the machine; most need not be told."""

LINK_FLAGS = (
    "-shared",
    "-Wl,--build-id=none",
    "-Wl,--strip-debug",
    "-Wl,--gc-sections",
    "-Wl,--no-undefined",
    "-Wl,-z,relro,-z,now,-z,noexecstack",
)

SOURCES = ("model.c", "memory.c", "tvm_abi.c", "pool.c", "shares.c", "workers.c", "placement.c", "fork.c")
SINGLE_THREAD_SOURCES = ("model.c", "memory.c", "tvm_abi.c", "pool_single.c")

EXPORTS = """{
  global:
    graphopt_create; graphopt_create_with; graphopt_run; graphopt_time; graphopt_set_threads; graphopt_set_passive;
    graphopt_destroy; graphopt_error_string; graphopt_layer_times;
  local: *;
};
"""


def link(
    objects: Sequence[bytes], glue_c: str, out: Path, cc: str = DEFAULT_CC, *, single_thread: bool = False
) -> None:
    """Writes the shared library `out`; the same objects, glue and compiler give the same bytes.

    `glue_c` includes "graphopt_rt.h" and defines `graphopt_variants` and `graphopt_variant_count`.
    Raises TargetError when the compiler is missing or refuses the glue or the object, OutputError when `out` cannot
    be written.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-link-") as temporary:
        folder = Path(temporary)
        compiled = [f"compiled{i}.o" for i in range(len(objects))]
        for name, content in zip(compiled, objects, strict=True):
            (folder / name).write_bytes(content)
        (folder / "glue.c").write_text(glue_c)
        (folder / "exports.map").write_text(EXPORTS)
        shim = _write_runtime(folder, cc, single_thread)
        _run([cc, *compile_flags(cc), f"-I{_csrc()}", "-c", "glue.c", "-o", "glue.o"], folder)
        threads = _thread_flags(single_thread)
        script = "-Wl,--version-script=exports.map"
        _run(
            [cc, *LINK_FLAGS, script, "-o", "library.so", *compiled, "glue.o", *shim, "-lm", *threads],
            folder,
        )
        with replacing(out) as file:
            file.write((folder / "library.so").read_bytes())


@lru_cache
def device_program(cc: str = DEFAULT_CC) -> bytes:
    """The program that runs compiled models for a host (csrc/device.c). Compiled once per process. Raises TargetError."""
    with tempfile.TemporaryDirectory(prefix="graphopt-device-") as name:
        folder = Path(name)
        source = str(_csrc() / "device.c")
        _run([cc, *compile_flags(cc), "-Wl,-s", "-o", "device", source, "-ldl"], folder)
        return (folder / "device").read_bytes()


def compile_flags(cc: str) -> tuple[str, ...]:
    """What the C sources are compiled with."""
    return (*COMPILE_FLAGS, *MACHINE_FLAGS.get(Path(cc).name, ()))


def runtime_objects(cc: str = DEFAULT_CC, *, single_thread: bool = False) -> dict[str, bytes]:
    """The C runtime compiled by `cc`: object file name -> contents. Compiled once per process."""
    return dict(_compile_runtime(cc, single_thread))


@lru_cache
def _compile_runtime(cc: str, single_thread: bool) -> tuple[tuple[str, bytes], ...]:
    sources = SINGLE_THREAD_SOURCES if single_thread else SOURCES
    names = [source.replace(".c", ".o") for source in sources]
    with tempfile.TemporaryDirectory(prefix="graphopt-runtime-") as name:
        folder = Path(name)
        paths = [str(_csrc() / source) for source in sources]
        _run([cc, *compile_flags(cc), *_thread_flags(single_thread), "-c", *paths], folder)
        return tuple((name, (folder / name).read_bytes()) for name in names)


def _thread_flags(single_thread: bool) -> list[str]:
    return [] if single_thread else ["-pthread"]


def _write_runtime(folder: Path, cc: str, single_thread: bool) -> list[str]:
    objects = runtime_objects(cc, single_thread=single_thread)
    for name, contents in objects.items():
        (folder / name).write_bytes(contents)
    return list(objects)


def _csrc() -> Path:
    return Path(str(resources.files("graphopt_runtime"))) / "csrc"


def _run(command: list[str], folder: Path) -> None:
    compiler = command[0]
    inside = {**os.environ, "TMPDIR": str(folder)}  # an interrupted compiler leaves its temporary files there
    try:
        result = subprocess.run(
            command, check=False, cwd=folder, env=inside, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise TargetError(_no_compiler(compiler)) from error
    if result.returncode == 0:
        return
    unknown = sorted(set(re.findall(r"undefined reference to `([^']+)'", result.stderr)))
    what = f"undefined symbols {', '.join(unknown)}" if unknown else result.stderr.strip()[-2000:]
    raise TargetError(f"{compiler} could not build the model's library: {what}")


def require_compiler(cc: str) -> None:
    """Raises TargetError where a compiler is not installed."""
    if missing_compiler(cc) is not None:
        raise TargetError(_no_compiler(cc))


def missing_compiler(cc: str) -> str | None:
    """What to do about a compiler that is not installed; None where it is."""
    if shutil.which(cc) is not None:
        return None
    packages = PACKAGES.get(Path(cc).name)
    return f"on Debian: apt-get install {packages}" if packages else "install it or name another compiler"


def _no_compiler(cc: str) -> str:
    return f"no C compiler: {cc!r} cannot be run; {missing_compiler(cc) or 'it is no program'}"

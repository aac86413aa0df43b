"""The C sources as any compiler sees them."""

import shutil
import subprocess
from pathlib import Path

import pytest

import graphopt_runtime

CSRC = Path(graphopt_runtime.__file__).parent / "csrc"


@pytest.mark.parametrize("source", sorted(path.name for path in CSRC.glob("*.c")))
def test_sources_are_strict_c11_without_warnings(source: str) -> None:
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    subprocess.run(["cc", "-O2", *warnings, "-c", str(CSRC / source), "-o", "/dev/null"], check=True)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_header_is_also_cpp() -> None:
    command = [
        "c++",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-x",
        "c++",
        "-fsyntax-only",
        str(CSRC / "graphopt.h"),
    ]
    subprocess.run(command, check=True)

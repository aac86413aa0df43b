"""The C compiler of Android's NDK: on PATH, or below the folder that a variable of the environment names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

API = 29
"""The oldest Android (10) that programs run on: before it, variables of threads are emulated."""

COMPILER = f"aarch64-linux-android{API}-clang"

HOMES = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")

PROGRAMS = "toolchains/llvm/prebuilt/*/bin"

HINT = f"install Android's NDK, and put {COMPILER} on PATH or the NDK's folder into {HOMES[0]}"

LINKER_FLAGS = ("-Wl,--undefined-version", "-Wl,-z,max-page-size=16384")
"""LLVM's linker refuses names of exports that there are not, unless told so; pages have 16 KB on newer devices."""


def find_compiler() -> str:
    """The compiler as it can be run; its bare name where it is not found."""
    homes = [Path(os.environ[name]) for name in HOMES if name in os.environ]
    found = (str(path) for home in homes for path in sorted(home.glob(f"{PROGRAMS}/{COMPILER}")))
    return COMPILER if shutil.which(COMPILER) is not None else next(found, COMPILER)

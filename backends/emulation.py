"""Runs code for other machines under qemu's user-mode emulators: right results, times that mean nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from graphopt.artifacts.device import Session
from graphopt.backends.codegen.toolchain import device_program
from graphopt.backends.targets import Target
from graphopt.errors import TargetError

PACKAGE = "qemu-user-static"
"""The Debian package that brings the emulators."""


def emulator(target: Target) -> str | None:
    """The path of the program that emulates a target, None where it is not installed."""
    return shutil.which(target.platform.emulator) if target.platform.emulator else None


def emulated(target: Target) -> Session:
    """A session under the emulator. Raises TargetError where the emulator or the cross compiler is missing."""
    program = emulator(target)
    if program is None:
        name = target.platform.emulator
        raise TargetError(f"{name} is not installed; on Debian: apt-get install {PACKAGE}")
    folder = tempfile.TemporaryDirectory(prefix="graphopt-device-")
    device = Path(folder.name) / "device"
    device.write_bytes(device_program(target.compiler))
    device.chmod(0o700)
    sysroot = ["-L", target.platform.sysroot] if target.platform.sysroot else []
    command = [program, "-cpu", target.emulated_cpu, *sysroot, str(device)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    assert process.stdin is not None
    assert process.stdout is not None

    def close() -> None:
        process.kill()
        process.wait()
        folder.cleanup()

    return Session(Path(program).name.removesuffix("-static"), process.stdout, process.stdin, close)

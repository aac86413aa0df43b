"""Tries inputs that are wrong in some way, each in a process of its own, and prints what graphopt says about them.

python benchmarks/bad_inputs.py prints a Markdown table: input, message, exit code, files left behind.
"""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bad_cases import CASES, Case, Disk
from graphopt.cli.report import markdown

LIMIT_S = 120.0

UNIMPORTANT = re.compile(r"Usage:|Try '|[┏┃┡│└]| +\d+ s  ")
"""Lines that the table leaves out: usage, tables, progress."""

NOT_OURS = (".ses",)
"""ONNX Runtime leaves a session number in the folder for temporary files as soon as it is imported."""


@dataclass(frozen=True)
class Result:
    """What came of a case; `faults` is empty if all is as it should be."""

    code: int
    message: str
    left: list[str]
    seconds: float
    faults: list[str] = field(default_factory=list)


def try_case(case: Case, folder: Path) -> Result:
    """Run a case in an empty folder; temporary files go to a folder inside, so that forgotten ones are seen."""
    (folder / "tmp").mkdir()
    (folder / "disk").mkdir()
    arguments = case.prepare(folder)
    with _mounted(case.disk, folder / "disk"):
        return _run(case, folder, arguments)


def _run(case: Case, folder: Path, arguments: Sequence[str | Path]) -> Result:
    before = files(folder)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "graphopt", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), **case.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if case.largest_file is not None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (case.largest_file, case.largest_file))
    with process:
        said = _interrupt(process) if case.interrupt else ""
        output, errors = process.communicate(timeout=LIMIT_S)
    left = sorted((files(folder) - before) - set(case.makes))
    result = Result(process.returncode, said + errors + output, left, time.monotonic() - started)
    return Result(**{**vars(result), "faults": list(faults(case, result))})


def faults(case: Case, result: Result) -> Sequence[str]:
    """What is wrong with a result."""
    found = {
        f"exit code {result.code} instead of {case.code}": result.code != case.code,
        f"the message lacks {case.says!r}": re.search(case.says, result.message) is None,
        "there is a traceback": "Traceback" in result.message,
        "it is called a bug of graphopt": "bug of graphopt" in result.message,
        f"left behind: {', '.join(result.left)}": bool(result.left),
    }
    return [fault for fault, there in found.items() if there]


def files(folder: Path) -> set[str]:
    """Every file in a folder, relative to it."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return found - {f"tmp/{name}" for name in NOT_OURS}


def _interrupt(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C once the command has said what it is doing."""
    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    return line


@contextmanager
def _mounted(disk: Disk | None, folder: Path) -> Iterator[None]:
    """Raises CalledProcessError for who may not mount."""
    if disk is None:
        yield
        return
    options = f"size={disk.size}{',ro' if disk.read_only else ''}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def row(case: Case, result: Result) -> list[str]:
    """A line of the table."""
    lines = [line for line in result.message.splitlines() if line.strip() and not UNIMPORTANT.match(line)]
    message = re.sub(r"/tmp/tmp\w+/", "", " / ".join(line.strip() for line in lines))
    short = message if len(message) <= 200 else message[:197] + "..."
    return [case.name, short, str(result.code), ", ".join(result.left) or "nothing"]


def main() -> int:
    rows: list[list[str]] = []
    wrong: dict[str, list[str]] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            result = try_case(case, Path(folder))
        rows.append(row(case, result))
        if result.faults:
            wrong[case.name] = result.faults
        print(f"{result.seconds:5.1f} s  {case.name}", file=sys.stderr)
    print(markdown(["input", "message", "exit code", "left behind"], rows))
    for name, found in wrong.items():
        print(f"WRONG {name}: {'; '.join(found)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

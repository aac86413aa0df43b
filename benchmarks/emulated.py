"""Compiles models for ARM cores and compares what they compute, under qemu, with ONNX Runtime. Prints a table.

    GRAPHOPT_ZOO=... python benchmarks/emulated.py --light [--target aarch64:neoverse-n1] [--precision fp16] [names]

Models that take longer than `--seconds` under the emulator are named, not judged: an emulator takes some hundred times as
long as a core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from graphopt.cli.report import markdown
from measured_models import binding, model_paths

HEADINGS = (
    "model",
    "target",
    "result",
    "multiply halves",
    "max rel err",
    "tolerance",
    "library KB",
    "seconds",
)


def judge(path: Path, target: str, precision: str, seconds: float) -> list[str]:
    """A row of the table. Each model has a process of its own, which can be ended."""
    command = [sys.executable, __file__, "--one", str(path), "--target", target, "--precision", precision]
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return [path.stem, target, f"took longer than {seconds:g} s", *[""] * 5]
    spent = f"{time.monotonic() - started:.0f}"
    if done.returncode:
        return [
            path.stem,
            target,
            (done.stderr.strip().splitlines() or ["failed"])[-1][:90],
            *[""] * 4,
            spent,
        ]
    return [path.stem, target, *done.stdout.split("|"), spent]


def judge_here(path: Path, target: str, precision: str) -> None:
    """Compile a model and print its verdict."""
    from graphopt import api
    from graphopt_runtime.artifact import open_artifact

    with tempfile.TemporaryDirectory() as folder:
        done = api.build(path, Path(folder) / "model.gopt", target, precision=precision, **binding(path))
        library = len(open_artifact(done.path).library) / 1000
    result = "right" if done.verdict.passed else f"not verified: {done.verdict.not_verified}"
    told = done.notices[-1].split(": ")[1].split(" convolutions")[0] if precision != "fp32" else ""
    tolerance = max((output.tolerance for output in done.verdict.outputs), default=0.0)
    print(f"{result}|{told}|{done.verdict.max_rel_err:.1e}|{tolerance:.1e}|{library:.0f}", end="")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of model names; all without")
    parser.add_argument("--target", action="append", help="repeatable")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--light", action="store_true", help="the light models too")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    targets = chosen.target or ["aarch64:neoverse-n1", "aarch64:cortex-a72"]
    if chosen.one is not None:
        judge_here(chosen.one, targets[0], chosen.precision)
        return 0
    rows = []
    for path in model_paths(chosen.light, chosen.names):
        for target in targets:
            rows.append(judge(path, target, chosen.precision, chosen.seconds))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(markdown(HEADINGS, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

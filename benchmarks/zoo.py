"""Compile every real model, check it, and time it next to ONNX Runtime: `python benchmarks/zoo.py [NAME...] [--light]`.

Real models come from the folder that GRAPHOPT_ZOO names, the light ones from the onnx package (see light.py). Each model is
compiled in a process of its own; both runtimes are then timed interleaved, with the same number of threads.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphopt import api
from graphopt.accuracy.islands import quantised_values
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.errors import GraphoptError, UnsupportedError, VerificationError
from graphopt.timing.bench import Schedule
from measured_models import binding, model_paths

HEADINGS = (
    "model",
    "result",
    "max rel err",
    "nodes",
    "kernels",
    "MB",
    "compile s",
    "graphopt ms",
    "onnxruntime ms",
    "ratio",
)


@dataclass
class Row:
    """One line of the table; `state` is right, refused or wrong."""

    name: str
    state: str
    error: float | None = None
    cells: dict[str, str] = field(default_factory=dict)
    ratio: float | None = None
    is_float: bool = True

    def texts(self) -> list[str]:
        filled = {"model": self.name, "result": self.state, **self.cells}
        return [filled.get(heading, "") for heading in HEADINGS]


def measure(path: Path, folder: Path, schedule: Schedule) -> Row:
    """Compile, verify and time one model."""
    name = path.stem
    options = binding(path)
    try:
        done = api.build(path, folder / f"{name}.gopt", **options)
    except UnsupportedError as error:
        operators = sorted({node.op for node in error.nodes})
        return Row(name, f"refused: {', '.join(operators)}")
    except VerificationError as error:
        return Row(name, f"wrong: {str(error).splitlines()[0][:80]}")
    except GraphoptError as error:
        return Row(name, f"refused: {str(error).splitlines()[0][:80]}")
    except Exception as error:
        return Row(name, f"crashed: {type(error).__name__} {str(error).splitlines()[0][:80]}")
    row = Row(name, "right" if done.verdict.verified else "not verified", done.verdict.max_rel_err)
    row.is_float = not quantised_values(building.read(path))
    row.cells = {
        "max rel err": f"{done.verdict.max_rel_err:.1e}",
        "nodes": f"{done.before.nodes} -> {done.after.nodes}",
        "kernels": str(done.kernels),
        "MB": f"{done.path.stat().st_size / 1e6:.2f}",
        "compile s": f"{sum(done.seconds.values()) - done.seconds['verify']:.1f}",
    }
    timed = api.compare(path, {"graphopt": done.path, "onnxruntime": None}, schedule=schedule, **options)
    ours, theirs = timed.backends["graphopt"], timed.backends["onnxruntime"]
    if not ours.error and not theirs.error:
        row.ratio = ours.median_ms / theirs.median_ms
        row.cells |= {
            "graphopt ms": f"{ours.median_ms:.3f}",
            "onnxruntime ms": f"{theirs.median_ms:.3f}",
            "ratio": f"{row.ratio:.2f}",
        }
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of model names; all without")
    parser.add_argument("--light", action="store_true", help="also the light models of the onnx package")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=5)
    chosen = parser.parse_args()
    folder = Path("build/zoo")
    folder.mkdir(parents=True, exist_ok=True)
    paths = model_paths(chosen.light, chosen.names)
    rows: list[Row] = []
    for path in paths:
        rows.append(measure(path, folder, Schedule(chosen.runs, chosen.blocks, 3)))
        print(" | ".join(rows[-1].texts()), file=sys.stderr, flush=True)
    print(markdown(HEADINGS, [row.texts() for row in rows]))
    ratios = [row.ratio for row in rows if row.ratio is not None and row.is_float]
    if ratios:
        mean = float(np.exp(np.mean(np.log(ratios))))
        print(f"\nGeometric mean of the ratios over {len(ratios)} float models: {mean:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Products of one row with weights of few values: looked up in registers, next to floats in memory and to int8 with scales.

`python benchmarks/lookup.py [--rows N]`

All four programs take turns on one thread; a table has the least and the median of the turns, and ratios of both to floats. The weights
of each program are larger than what others leave in caches, or lie in those with them: as in a model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import model as models
from graphopt.artifacts import artifact
from graphopt.backends.compiler import compile_models
from graphopt.backends.execution import open_build
from graphopt.backends.kernels.core import Core
from graphopt.backends.schedules.choice import Rules, Usable
from graphopt.backends.schedules.lookup import looks_up
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import native
from graphopt.cli.report import markdown
from graphopt.compiling import manifest
from graphopt.rewriting.pipeline import Report

EXTENTS = ((128, 128), (512, 512), (1024, 1024), (4096, 1024), (4096, 4096))
"""Rows and columns of the weights."""

TURNS = 60

KINDS = {"float32": "float", "int8": "int8"}
"""Types as ONNX's text has them."""

HEADINGS = ("weights", "program", "us, least", "median", "floats / this, least", "median")


class Floats(Rules):
    """Looks nothing up."""

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        return super().choose(workload, core, lambda config: usable(config) and not looks_up(config))


def model(rows: int, depth: int, columns: int, weights: Mapping[str, np.ndarray], text: str) -> ir.Model:
    """One product."""
    tensors = {name: ir.Tensor(array, name=name) for name, array in weights.items()}
    inputs = [f"{KINDS[array.dtype.name]}{list(array.shape)} {name}" for name, array in weights.items()]
    made = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]> agraph (float[{rows},{depth}] x, {", ".join(inputs)})
        => (float[{rows},{columns}] y) {{ {text} }}"""
    )
    for value in made.graph.inputs[1:]:
        value.const_value = tensors[value.name or ""]
        made.graph.inputs.remove(value)
        made.graph.register_initializer(value)
    models.normalise(made)
    return made


def programs(rows: int, depth: int, columns: int) -> dict[str, tuple[ir.Model, Rules]]:
    """By name."""
    rng = np.random.default_rng(0)

    def clustered(values: int) -> ir.Model:
        weights = rng.standard_normal(values).astype(np.float32)[rng.integers(0, values, (depth, columns))]
        return model(rows, depth, columns, {"w": weights}, "y = MatMul(x, w)")

    levels = rng.integers(-127, 128, (depth, columns)).astype(np.int8)
    scales = np.full(columns, 0.01, np.float32)
    integers: dict[str, np.ndarray] = {"q": levels, "s": scales}
    return {
        "floats": (clustered(16), Floats()),
        "16 values": (clustered(16), Rules()),
        "32 values": (clustered(32), Rules()),
        "int8-weights": (
            model(rows, depth, columns, integers, "d = DequantizeLinear <axis = 1> (q, s) y = MatMul(x, d)"),
            Rules(),
        ),
    }


def table(rows: int, depth: int, columns: int) -> list[list[str]]:
    """Of one shape of weights."""
    made = programs(rows, depth, columns)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs = []
        for number, (one, schedules) in enumerate(made.values()):
            library = compile_models([one], native(), schedules=schedules)
            path = Path(folder) / f"{number}.gopt"
            artifact.write(path, [manifest.describe("kernel", Report(), native(), library, None)])
            runs.append(stack.enter_context(open_build(path, native(), threads=1)))
        x = np.random.default_rng(1).standard_normal((rows, depth)).astype(np.float32)
        seconds = 1e6 * np.array([[timed(run, x) for run in runs] for _ in range(TURNS)])
    least, median = seconds.min(axis=0), np.median(seconds, axis=0)
    return [
        [
            f"{depth}x{columns}",
            name,
            *(f"{each:.1f}" for each in (a, b)),
            f"{least[0] / a:.2f}",
            f"{median[0] / b:.2f}",
        ]
        for name, a, b in zip(made, least, median, strict=True)
    ]


def timed(run: Any, x: np.ndarray) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    run.run(None, {"x": x})
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1)
    rows = parser.parse_args().rows
    found = []
    for depth, columns in EXTENTS:
        for row in table(rows, depth, columns):
            found.append(row)
            print(*row, sep=" | ", flush=True)
    print(f"\n{markdown(HEADINGS, found)}")


if __name__ == "__main__":
    main()

"""Weights of zero: what they cost without training, and what skipping vectors of them gains.

`GRAPHOPT_ZOO=... python benchmarks/sparsity.py [--kernels] [NAME...]`

Every model has its zeros chosen by magnitude, with and without weights that make up for them, and by Wanda; it is judged on other data
than it was calibrated on. Kernels multiply by random weights of which a share of the vectors is not zero: once without regard to that, and once
skipping the others, in turns, on one thread. Times are the least of all turns.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt import model as models
from graphopt.artifacts import artifact
from graphopt.backends.compiler import compile_models
from graphopt.backends.execution import open_build
from graphopt.backends.kernels.core import Core
from graphopt.backends.schedules.choice import FAMILIES, Rules, Usable
from graphopt.backends.schedules.sparse import is_sparse
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import native
from graphopt.cli.report import markdown
from graphopt.compiling import manifest
from graphopt.compression.sparsifying import sparsify
from graphopt.feeds.data import Dataset
from graphopt.rewriting.pipeline import Report
from int8_data import CASES, Case, datasets, part

MODELS = ("cifar10_resnet20", "cifar10_resnet56", "squeezenet1.1_ncnnfp16", "minilm_l6_v2")

PATTERNS: Mapping[str, Mapping[str, Any]] = {
    "50 %": {"ratio": 0.5},
    "50 % of all": {"ratio": 0.5, "across": True},
    "2:4": {"pattern": "2:4"},
    "16x1, 30 %": {"pattern": "16x1", "ratio": 0.3},
    "16x1, 50 %": {"pattern": "16x1", "ratio": 0.5},
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "magnitude": {"compensate": False},
    "magnitude, made up for": {},
    "wanda, made up for": {"criterion": "wanda"},
}
COSTS = ("model", "zeros", "by", "SQNR dB", "cosine", "agreement", "top-1", "change")
GAINS = ("kernel", "vectors kept", "multiplying us", "skipping us", "ratio", "estimate", "skipped by rule")

MOST_CALIBRATION, MOST_TEST = 100, 1000
"""Samples."""

Make = Callable[[float], ir.Model]
"""A model of one kernel, a share of the vectors of whose weights is not zero."""

KEPT = (0.8, 0.7, 0.6, 0.5, 0.3, 0.1)
TURNS, IN_A_ROW = 60, 3


def costs(case: Case, calib: Dataset, test: Dataset) -> Iterator[list[str]]:
    """Rows of the first table."""
    path = Path(os.environ["GRAPHOPT_ZOO"]) / "models" / f"{case.model}.onnx"
    for zeros, pattern in PATTERNS.items():
        for method, options in METHODS.items():
            done = sparsify(path, calib, evaluate_on=test, **pattern, **options)
            found = done.evaluation
            assert found is not None
            row = [case.model, zeros, method, f"{found.sqnr_db:.1f}", f"{found.cosine:.4f}"]
            top1 = change = ""
            if found.top1 is not None and found.interval is not None:
                before, after = (100 * share for share in found.top1)
                top1, change = (
                    f"{before:.2f} -> {after:.2f}",
                    f"{after - before:+.2f} +- {100 * found.interval:.2f}",
                )
            agreement = (
                "" if found.agreement is None or case.transformer else f"{100 * found.agreement:.1f} %"
            )
            yield [*row, agreement, top1, change]


class Either(Rules):
    """Chooses the best of the schedules that skip, or of those that do not, and keeps its estimate."""

    def __init__(self, skips: bool) -> None:
        self.skips, self.cycles = skips, 0.0

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        found = FAMILIES[workload.family].candidates(workload, core)
        self.cycles, config = next(
            each for each in found if is_sparse(each[1]) == self.skips and usable(each[1])
        )
        return config


def vectors(rows: int, columns: int, kept: float) -> np.ndarray:
    """Random weights, a share of whose vectors are not zero."""
    lanes, random = native().lanes, np.random.default_rng(0)
    mask = random.random((rows, -(-columns // lanes))) < kept
    weights = random.standard_normal((rows, columns)) * np.repeat(mask, lanes, axis=1)[:, :columns]
    return weights.astype(np.float32)


def product(m: int, k: int, n: int, kept: float) -> ir.Model:
    """A model of one product."""
    return _model("MatMul", (m, k), (m, n), vectors(k, n, kept))


def convolution(channels: int, kernel: int, side: int, kept: float) -> ir.Model:
    """A model of one convolution that keeps the shape of the image."""
    image = (1, channels, side, side)
    rows = vectors(channels * kernel**2, channels, kept)
    weights = rows.T.reshape(channels, channels, kernel, kernel).copy()
    return _model("Conv", image, image, weights, pads=[kernel // 2] * 4)


def _model(
    op: str, inside: tuple[int, ...], outside: tuple[int, ...], weights: np.ndarray, **attributes: Any
) -> ir.Model:
    kind = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", shape=ir.Shape(inside), type=kind)
    w = ir.Value(name="w", shape=ir.Shape(weights.shape), type=kind, const_value=ir.Tensor(weights, name="w"))
    node = ir.node(op, [x, w], attributes)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = "y", ir.Shape(outside), kind
    graph = ir.Graph(
        [x], [node.outputs[0]], nodes=[node], initializers=[w], opset_imports={"": 21}, name="one"
    )
    model = ir.Model(graph, ir_version=10)
    models.normalise(model)
    return model


def products() -> dict[str, Make]:
    """By name."""
    extents = ((128, 384, 1536), (16, 768, 768), (1, 4096, 4096), (1, 512, 512))
    return {f"product {m}x{k}x{n}": partial(product, m, k, n) for m, k, n in extents}


def convolutions() -> dict[str, Make]:
    """By name."""
    extents = ((128, 1, 28), (256, 1, 14), (64, 3, 56), (256, 3, 14))
    return {
        f"convolution {kernel}x{kernel}, {channels} channels, {side}x{side}": partial(
            convolution, channels, kernel, side
        )
        for channels, kernel, side in extents
    }


def gains(name: str, make: Make) -> Iterator[list[str]]:
    """Rows of the second table."""
    for kept in KEPT:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            choices, runs = [Either(False), Either(True)], []
            for number, schedules in enumerate(choices):
                library = compile_models([make(kept)], native(), schedules=schedules)
                path = Path(folder) / f"{number}.gopt"
                artifact.write(path, [manifest.describe("kernel", Report(), native(), library, None)])
                runs.append(stack.enter_context(open_build(path, native(), threads=1)))
            shape = make(kept).graph.inputs[0].shape
            assert shape is not None
            feeds = {"x": np.random.default_rng(1).standard_normal(shape.numpy()).astype(np.float32)}
            seconds = np.array([[timed(run, feeds) for run in runs] for _ in range(TURNS)])
        plain, sparse = 1e6 * seconds.min(axis=0)
        estimate = choices[1].cycles / choices[0].cycles
        times = f"{plain:.1f}", f"{sparse:.1f}", f"{sparse / plain:.2f}", f"{estimate:.2f}"
        yield [name, f"{100 * kept:.0f} %", *times, "yes" if estimate < 1 else "no"]


def timed(run: Any, feeds: Mapping[str, np.ndarray]) -> float:
    """Seconds a run, of a few in a row after one that warms up."""
    run.run(None, dict(feeds))
    started = time.perf_counter()
    for _ in range(IN_A_ROW):
        run.run(None, dict(feeds))
    return (time.perf_counter() - started) / IN_A_ROW


def shortened(data: Dataset, most: int) -> Dataset:
    """The first samples."""
    return data if len(data) <= most else part(data, range(most))


def main() -> None:
    """Print both tables, or that of the kernels alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--kernels", action="store_true")
    chosen = parser.parse_args()
    lost: list[list[str]] = []
    for case in () if chosen.kernels else CASES:
        if case.model in (chosen.names or MODELS):
            calib, test = datasets(case, Path(os.environ["GRAPHOPT_ZOO"]))
            for row in costs(case, shortened(calib, MOST_CALIBRATION), shortened(test, MOST_TEST)):
                lost.append(row)
                print(*row, sep=" | ", flush=True)
    won: list[list[str]] = []
    for name, make in {**products(), **convolutions()}.items():
        for row in gains(name, make):
            won.append(row)
            print(*row, sep=" | ", flush=True)
    print(f"\n{markdown(COSTS, lost)}\n\n{markdown(GAINS, won)}")


if __name__ == "__main__":
    main()

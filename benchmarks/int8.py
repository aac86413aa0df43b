"""int8 from float models: what it costs and what it gains, next to ONNX Runtime's own quantisation and NNCF's.

`GRAPHOPT_ZOO=... python benchmarks/int8.py [NAME...]`

Every model is quantised by `graphopt quantize` with its defaults, by the methods of `onnxruntime.quantization`, and by NNCF if that is
installed, on the same calibration data; all are judged on other data. Times are of three tools in turns, on each of the
models; each tool counts with the one that it runs fastest.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from graphopt import api
from graphopt.accuracy.evaluation import Evaluation, Judge
from graphopt.arrays import Feeds
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.compression.quantizing import quantize
from graphopt.feeds.data import Dataset
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model.variants import Binding, make_variants
from graphopt_runtime import CompiledModel
from int8_data import CASES, Case, datasets
from int8_peers import MOST, peers

OURS = "graphopt"
ACCURACY = (
    "model",
    "quantised by",
    "MB",
    "of float",
    "SQNR dB",
    "cosine",
    "Spearman",
    "agreement",
    "top-1",
    "change",
)
SPEED = (
    "model",
    "graphopt float ms",
    "graphopt int8 ms",
    "onnxruntime int8 ms",
    "openvino int8 ms",
    "to float",
    "to the best",
    "integer share",
)
RUNTIMES = ("onnxruntime", "openvino")
TURNS, IN_A_ROW = 60, 10


def quantised(case: Case, model: Path, calib: Dataset, folder: Path) -> Iterator[tuple[str, Path]]:
    """The model by each tool that manages it."""
    quantize(model, calib, path := folder / f"{OURS}.onnx", samples=MOST)
    yield OURS, path
    for tool, quantise in peers(case.transformer).items():
        if tool == "nncf" and find_spec("nncf") is None:
            continue
        try:
            quantise(model, calib, path := folder / f"{tool.replace(' ', '_')}.onnx")
        except Exception as error:
            print(f"{case.model} by {tool}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        else:
            yield tool, path


def spearman(before: np.ndarray, after: np.ndarray) -> float:
    """The rank correlation of the similarities of all pairs of rows."""
    pairs = np.triu_indices(len(before), 1)
    ranks = []
    for rows in (before, after):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        ranks.append((unit @ unit.T)[pairs].argsort().argsort())
    return float(np.corrcoef(*ranks)[0, 1])


def accuracy(case: Case, tool: str, before: Path, after: Path, found: Evaluation) -> list[str]:
    """A row of the first table."""
    size = after.stat().st_size
    top1 = change = agreement = ""
    if case.transformer:
        rank = "" if found.metric is None else f"{found.metric[1]:.4f}"
    else:
        rank, agreement = "", "" if found.agreement is None else f"{100 * found.agreement:.1f} %"
    if found.top1 is not None and found.interval is not None:
        top1 = f"{100 * found.top1[0]:.2f} -> {100 * found.top1[1]:.2f}"
        change = f"{100 * (found.top1[1] - found.top1[0]):+.2f} +- {100 * found.interval:.2f}"
    numbers = [f"{size / 1e6:.2f}", f"{size / before.stat().st_size:.2f}", f"{found.sqnr_db:.1f}"]
    return [case.model, tool, *numbers, f"{found.cosine:.4f}", rank, agreement, top1, change]


def spearman_metric(
    outputs: Mapping[str, np.ndarray], original: Mapping[str, np.ndarray], feeds: object, labels: object
) -> float:
    """Of embeddings."""
    return spearman(next(iter(original.values())), next(iter(outputs.values())))


def speed(case: Case, model: Path, by_tool: Mapping[str, Path]) -> tuple[list[str], float, float]:
    """A row of the second table, and its ratios."""

    def measure(backends: Mapping[str, Path | None], path: Path) -> dict[str, float]:
        content = api.compare(path, backends, dims=dict(case.dims)).to_json()["backends"]
        return {name: each.get("median_ms", float("inf")) for name, each in content.items()}

    found = [measure({OURS: by_tool[OURS], **dict.fromkeys(RUNTIMES)}, path) for path in by_tool.values()]
    best = {name: min(times[name] for times in found) for name in RUNTIMES}
    int8 = float(np.median([times[OURS] for times in found]))
    plain, quantized, share = in_turns(case, model, by_tool[OURS])
    to_float, to_best = quantized / plain, int8 / min(best.values())
    times = [f"{plain:.3f}", f"{int8:.3f}", *(f"{best[name]:.3f}" for name in RUNTIMES)]
    return (
        [case.model, *times, f"{to_float:.2f}", f"{to_best:.2f}", f"{100 * share:.1f} %"],
        to_float,
        to_best,
    )


def in_turns(case: Case, model: Path, ours: Path) -> tuple[float, float, float]:
    """Median milliseconds of our float and int8 artifacts, run in turns, and the share of multiply-adds on integers."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        compiled, share = [], 0.0
        for number, path in enumerate((model, ours)):
            built = api.build(path, Path(folder) / f"{number}.gopt", dims=dict(case.dims), check=False)
            share = built.integer_share
            compiled.append(stack.enter_context(api.load(built.path)))
        feeds = random_feeds(make_variants(building.read(model), Binding(case.dims, {}, {})).models[0])
        seconds = np.array([[timed(each, feeds) for each in compiled] for _ in range(TURNS)])
    plain, quantized = 1e3 * np.median(seconds, axis=0)
    return float(plain), float(quantized), share


def timed(compiled: CompiledModel, feeds: Feeds) -> float:
    """Seconds a run, of a few in a row after one that warms up."""
    compiled.run(None, dict(feeds))
    started = time.perf_counter()
    for _ in range(IN_A_ROW):
        compiled.run(None, dict(feeds))
    return (time.perf_counter() - started) / IN_A_ROW


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args().names
    zoo = Path(os.environ["GRAPHOPT_ZOO"])
    costs, gains, ratios = [], [], []
    for case in CASES:
        if chosen and case.model not in chosen:
            continue
        with tempfile.TemporaryDirectory() as name:
            model = zoo / "models" / f"{case.model}.onnx"
            calib, test = datasets(case, zoo)
            judge = Judge(building.read(model), test, metric=spearman_metric if case.transformer else None)
            by_tool = dict(quantised(case, model, calib, Path(name)))
            for tool, path in by_tool.items():
                costs.append(accuracy(case, tool, model, path, judge.judge(building.read(path))))
                print(*costs[-1], sep=" | ", flush=True)
            row, *found_ratios = speed(case, model, by_tool)
            gains.append(row)
            ratios.append(found_ratios)
            print(*row, sep=" | ", flush=True)
    means = np.exp(np.mean(np.log(ratios), axis=0))
    print(f"\n{markdown(ACCURACY, costs)}\n\n{markdown(SPEED, gains)}\n")
    print(f"Geometric means: {means[0]:.2f} of float, {means[1]:.2f} of the faster peer's int8")


if __name__ == "__main__":
    main()

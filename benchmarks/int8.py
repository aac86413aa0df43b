"""int8 from float models: what it costs and what it gains, next to ONNX Runtime's own quantisation.

`GRAPHOPT_ZOO=... python benchmarks/int8.py [NAME...]`

Every model is quantised by `graphopt quantize` with its defaults and by `onnxruntime.quantization.quantize_static` (QDQ, a scale a
channel, MinMax) on the same calibration data; both are judged on other data. The times are of three tools in turns, each with
the model that it runs faster.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from graphopt import api, building
from graphopt.arrays import Feeds
from graphopt.data import Dataset, load_dataset
from graphopt.evaluation import Evaluation, evaluate
from graphopt.quantizer import LEAST_OPSET
from graphopt.quantizing import quantize
from graphopt.report import markdown

CALIBRATION, MOST = 200, 300
"""Samples for ranges: of one folder with the test data behind them, and of a file of their own."""


@dataclass(frozen=True)
class Case:
    """A model, where its data is, and the sizes of free dimensions for timing; without `test` the data is cut in two."""

    model: str
    calib: str
    test: str | None = None
    preprocess: str | None = None
    dims: Mapping[str, int] = field(default_factory=dict)


CASES = (
    Case("cifar10_resnet20", "cifar10_train4k_lossless_unlabelled.npz", "cifar10_test_jpeg_5k.npz", "cifar"),
    Case("cifar10_resnet56", "cifar10_train4k_lossless_unlabelled.npz", "cifar10_test_jpeg_5k.npz", "cifar"),
    Case("squeezenet1.1_ncnnfp16", "imagenet_sample", None, "imagenet"),
    Case("mobilenet_v2_1.0_224_fp32_from_int8", "imagenet_sample", None, "signed"),
    Case("shufflenet-v2_fp32_from_int8", "imagenet_sample", None, "imagenet"),
    Case("minilm_l6_v2", "sentences_minilm_tokens.npz", None, None, {"batch": 1, "seq": 128}),
)

ACCURACY = ("model", "tool", "MB", "of float", "SQNR dB", "cosine", "agreement", "top-1", "change")
SPEED = (
    "model",
    "graphopt float ms",
    "graphopt int8 ms",
    "onnxruntime int8 ms",
    "openvino int8 ms",
    "to float",
    "to the best",
)


def datasets(case: Case, zoo: Path) -> tuple[Dataset, Dataset]:
    """For calibration and for the test."""
    inputs = list(building.read(zoo / "models" / f"{case.model}.onnx").graph.inputs)
    first = load_dataset(zoo / "data" / case.calib, inputs, case.preprocess)
    if case.test is not None:
        return first, load_dataset(zoo / "data" / case.test, inputs, case.preprocess)
    rows = range(len(first))
    return _part(first, rows[:CALIBRATION]), _part(first, rows[CALIBRATION:])


def _part(data: Dataset, rows: range) -> Dataset:
    labels = None if data.labels is None else data.labels[rows.start : rows.stop]
    return Dataset({name: [column[i] for i in rows] for name, column in data.columns.items()}, labels)


def by_onnxruntime(model: Path, data: Dataset, output: Path) -> None:
    """ONNX Runtime's static quantisation."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Feeds] = data.batches(1, MOST)

        def get_next(self) -> Feeds | None:
            return next(self._batches, None)

    newer, prepared = output.with_suffix(".newer.onnx"), output.with_suffix(".prepared.onnx")
    content = onnx.load(model)
    if content.opset_import[0].version < LEAST_OPSET:
        content = onnx.version_converter.convert_version(content, LEAST_OPSET)
    onnx.save(content, newer)
    quant_pre_process(newer, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, output, Reader(), per_channel=True)


def accuracy(case: Case, tool: str, before: Path, after: Path, found: Evaluation) -> list[str]:
    """A row of the first table."""
    size = after.stat().st_size
    top1 = "" if found.top1 is None else f"{100 * found.top1[0]:.2f} -> {100 * found.top1[1]:.2f}"
    change = ""
    if found.top1 is not None and found.interval is not None:
        change = f"{100 * (found.top1[1] - found.top1[0]):+.2f} +- {100 * found.interval:.2f}"
    numbers = [
        f"{size / 1e6:.2f}",
        f"{size / before.stat().st_size:.2f}",
        f"{found.sqnr_db:.1f}",
        f"{found.cosine:.4f}",
    ]
    agreement = "" if found.agreement is None else f"{100 * found.agreement:.1f} %"
    return [case.model, tool, *numbers, agreement, top1, change]


def speed(case: Case, model: Path, ours: Path, theirs: Path) -> tuple[list[str], float, float]:
    """A row of the second table, and its ratios."""

    def measure(backends: Mapping[str, Path | None], path: Path) -> dict[str, float]:
        content = api.compare(path, backends, dims=dict(case.dims)).to_json()["backends"]
        return {name: each.get("median_ms", float("inf")) for name, each in content.items()}

    peers = ("onnxruntime", "openvino")
    with_ours = measure({"graphopt": None, **dict.fromkeys(peers)}, ours)
    with_theirs = measure({"graphopt": ours, **dict.fromkeys(peers)}, theirs)
    plain = measure({"graphopt": None}, model)["graphopt"]
    int8 = float(np.mean([with_ours["graphopt"], with_theirs["graphopt"]]))
    best = {name: min(with_ours[name], with_theirs[name]) for name in peers}
    to_float, to_best = int8 / plain, int8 / min(best.values())
    times = [f"{plain:.3f}", f"{int8:.3f}", f"{best['onnxruntime']:.3f}", f"{best['openvino']:.3f}"]
    return [case.model, *times, f"{to_float:.2f}", f"{to_best:.2f}"], to_float, to_best


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
            folder, model = Path(name), zoo / "models" / f"{case.model}.onnx"
            calib, test = datasets(case, zoo)
            ours, theirs = folder / "ours.onnx", folder / "theirs.onnx"
            quantize(model, calib, ours, samples=MOST, evaluate_on=test)
            by_onnxruntime(model, calib, theirs)
            original = building.read(model)
            for tool, path in (("graphopt", ours), ("onnxruntime", theirs)):
                found = evaluate(original, building.read(path), test)
                costs.append(accuracy(case, tool, model, path, found))
                print(*costs[-1], sep=" | ", flush=True)
            row, *found_ratios = speed(case, model, ours, theirs)
            gains.append(row)
            ratios.append(found_ratios)
            print(*row, sep=" | ", flush=True)
    means = np.exp(np.mean(np.log(ratios), axis=0))
    print(f"\n{markdown(ACCURACY, costs)}\n\n{markdown(SPEED, gains)}\n")
    print(f"Geometric means: {means[0]:.2f} of float, {means[1]:.2f} of the faster peer's int8")


if __name__ == "__main__":
    main()

"""Models of the zoo that are quantised, and the data on which: ranges come from one part, judgement from another."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphopt.compiling import building
from graphopt.feeds.data import Dataset, load_dataset

CALIBRATION = 200
"""Samples for ranges where the test data lies behind them in the same place."""

IDX_HEADERS = {"images": 16, "labels": 8}
"""Bytes before the numbers in the files of MNIST."""


@dataclass(frozen=True)
class Case:
    """A model, where its data is, and the sizes of free dimensions for timing; without `test` the data is cut in two."""

    model: str
    calib: str
    test: str | None = None
    preprocess: str | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    transformer: bool = False


CIFAR = ("cifar10_train4k_lossless_unlabelled.npz", "cifar10_test_jpeg_5k.npz", "cifar")
CASES = (
    Case("mnist", "mnist"),
    Case("cifar10_resnet20", *CIFAR),
    Case("cifar10_resnet56", *CIFAR),
    Case("squeezenet1.1_ncnnfp16", "imagenet_sample", None, "imagenet"),
    Case("mobilenet_v2_1.0_224_fp32_from_int8", "imagenet_sample", None, "signed"),
    Case("shufflenet-v2_fp32_from_int8", "imagenet_sample", None, "imagenet"),
    Case("minilm_l6_v2", "sentences_minilm_tokens.npz", None, None, {"batch": 1, "seq": 128}, True),
)


def datasets(case: Case, zoo: Path) -> tuple[Dataset, Dataset]:
    """For calibration and for the test."""
    inputs = list(building.read(zoo / "models" / f"{case.model}.onnx").graph.inputs)
    if case.calib == "mnist":
        whole = _mnist(zoo / "data" / "mnist", inputs[0].name or "")
    else:
        whole = load_dataset(zoo / "data" / case.calib, inputs, case.preprocess)
    if case.test is not None:
        return whole, load_dataset(zoo / "data" / case.test, inputs, case.preprocess)
    rows = range(len(whole))
    return part(whole, rows[:CALIBRATION]), part(whole, rows[CALIBRATION:])


def part(data: Dataset, rows: range) -> Dataset:
    """Some of the samples."""
    labels = None if data.labels is None else data.labels[rows.start : rows.stop]
    return Dataset({name: [column[i] for i in rows] for name, column in data.columns.items()}, labels)


def _mnist(folder: Path, name: str) -> Dataset:
    images, labels = (
        np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8)[IDX_HEADERS[kind] :]
        for kind in ("images", "labels")
        for file in folder.glob(f"t10k-{kind}-*.gz")
    )
    return Dataset({name: images.reshape(-1, 1, 28, 28).astype(np.float32)}, labels.astype(np.int64))

"""What a change of a model cost, measured: its outputs next to those of the original on real data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.arrays import Array
from graphopt.calibration import batch_size
from graphopt.data import Dataset
from graphopt.errors import DataError
from graphopt.verify import ReferenceFailed, reference

NORMAL_95 = 1.96
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Evaluation:
    """The first output of two models over `samples` samples.

    `sqnr_db` is the ratio of the original's power to that of the difference; `cosine` the mean over samples; `agreement` the share
    of samples with the same largest element, `top1` that with the right one, before and after; `interval` half the width of the
    95 % interval of the change of top-1, by pairs of samples. None where they say nothing.
    """

    samples: int
    sqnr_db: float
    cosine: float
    agreement: float | None = None
    top1: tuple[float, float] | None = None
    interval: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**vars(self), "top1": None if self.top1 is None else list(self.top1)}

    def __str__(self) -> str:
        parts = [f"{self.samples} samples", f"SQNR {self.sqnr_db:.1f} dB", f"cosine {self.cosine:.5f}"]
        if self.agreement is not None:
            parts.append(f"agreement {100 * self.agreement:.2f} %")
        if self.top1 is not None and self.interval is not None:
            before, after = (100 * share for share in self.top1)
            parts.append(
                f"top-1 {before:.2f} -> {after:.2f} % ({after - before:+.2f} +- {100 * self.interval:.2f})"
            )
        return ", ".join(parts)


def evaluate(
    original: ir.Model,
    changed: ir.Model,
    data: Dataset,
    samples: int | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Evaluation:
    """Run both on the first samples, or on all. Raises DataError where there are none, or where they do not fit."""
    before, after = (
        np.concatenate(list(_outputs(model, data, samples, progress))) for model in (original, changed)
    )
    rows, others = (each.reshape(len(each), -1).astype(np.float64) for each in (before, after))
    noise = np.square(rows - others).sum()
    sqnr = float(10 * np.log10(np.square(rows).sum() / noise)) if noise else float("inf")
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    cosine = float(np.mean(np.where(norms > 0, (rows * others).sum(axis=1) / np.maximum(norms, 1e-30), 1.0)))
    if rows.shape[1] < 2:
        return Evaluation(len(rows), sqnr, cosine)
    chosen = rows.argmax(axis=1), others.argmax(axis=1)
    agreement = float((chosen[0] == chosen[1]).mean())
    if data.labels is None:
        return Evaluation(len(rows), sqnr, cosine, agreement)
    right = [each == data.labels[: len(rows)] for each in chosen]
    top1 = float(right[0].mean()), float(right[1].mean())
    return Evaluation(len(rows), sqnr, cosine, agreement, top1, _interval(right[0], right[1]))


def _outputs(
    model: ir.Model, data: Dataset, samples: int | None, progress: Callable[[str], None]
) -> Iterator[Array]:
    count = len(data) if samples is None else min(samples, len(data))
    size = batch_size(model, count)
    if count < size:
        raise DataError(f"there are {count} sample(s) to evaluate on, one run of the model takes {size}")
    run, name = reference(model, optimised=True), model.graph.outputs[0].name or ""
    for number, feeds in enumerate(data.batches(size, count)):
        progress(f"evaluate: sample {number * size + 1} of {count}")
        try:
            yield np.asarray(run(feeds)[name])
        except ReferenceFailed as error:
            raise DataError(f"the data does not fit the model: {error}") from error


def _interval(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """Half the width of the interval of a difference of paired proportions."""
    lost, won, count = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    return float(NORMAL_95 * np.sqrt(max(lost + won - (lost - won) ** 2 / count, 0.0)) / count)

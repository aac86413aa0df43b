"""What a change of a model cost, measured: its outputs next to those of the original on real data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.arrays import Array
from graphopt.calibration import batch_size
from graphopt.data import Dataset
from graphopt.errors import DataError
from graphopt.metrics import Metric, find_metric, mean_cosine
from graphopt.verify import ReferenceFailed, reference

NORMAL_95 = 1.96
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """The first output of two models over `samples` samples.

    `sqnr_db` is the ratio of the original's power to that of the difference; `cosine` the mean over samples; `agreement` the share
    of largest elements, along the last axis, in the same place; `top1` that of samples whose label has the largest, before and
    after; `interval` half the width of the 95 % interval of the change of top-1, by pairs of samples. `metric` are the user's
    numbers, before and after. None where they say nothing.
    """

    samples: int
    sqnr_db: float
    cosine: float
    agreement: float | None = None
    top1: tuple[float, float] | None = None
    interval: float | None = None
    metric: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {name: list(each) if isinstance(each, tuple) else each for name, each in vars(self).items()}

    @property
    def drop(self) -> float:
        """What the metric lost."""
        assert self.metric is not None
        return self.metric[0] - self.metric[1]

    def __str__(self) -> str:
        parts = [f"{self.samples} samples", f"SQNR {self.sqnr_db:.1f} dB", f"cosine {self.cosine:.5f}"]
        if self.agreement is not None:
            parts.append(f"agreement {100 * self.agreement:.2f} %")
        if self.top1 is not None and self.interval is not None:
            before, after = (100 * share for share in self.top1)
            parts.append(
                f"top-1 {before:.2f} -> {after:.2f} % ({after - before:+.2f} +- {100 * self.interval:.2f})"
            )
        if self.metric is not None:
            parts.append(f"metric {self.metric[0]:.3f} -> {self.metric[1]:.3f}")
        return ", ".join(parts)


class Judge:
    """Compares models with one original on the same samples; the original is run once.

    Raises DataError where there are no samples, or where they do not fit.
    """

    def __init__(
        self,
        original: ir.Model,
        data: Dataset,
        samples: int | None = None,
        metric: str | Metric | None = None,
        progress: Progress = lambda stage: None,
    ) -> None:
        self._data, self._progress = data, progress
        self._count = len(data) if samples is None else min(samples, len(data))
        self._metric = find_metric(metric) if isinstance(metric, str) else metric
        self._original = self._outputs(original)
        self._feeds = self._inputs() if metric is not None else {}

    def judge(self, changed: ir.Model) -> Evaluation:
        """What the change cost."""
        outputs = self._outputs(changed)
        found = compare_outputs(_first(self._original), _first(outputs), self._data.labels)
        if self._metric is None:
            return found
        both = [self._score(self._metric, each) for each in (self._original, outputs)]
        return Evaluation(**{**vars(found), "metric": (both[0], both[1])})

    def _score(self, metric: Metric, outputs: Mapping[str, Array]) -> float:
        labels = None if self._data.labels is None else self._data.labels[: len(_first(outputs))]
        return metric(outputs, self._original, self._feeds, labels)

    def _inputs(self) -> dict[str, Array]:
        """As many samples as were run."""
        count = len(_first(self._original))
        return {
            name: np.stack([column[i] for i in range(count)]) for name, column in self._data.columns.items()
        }

    def _outputs(self, model: ir.Model) -> dict[str, Array]:
        size = batch_size(model, self._count)
        if self._count < size:
            raise DataError(
                f"there are {self._count} sample(s) to evaluate on, one run of the model takes {size}"
            )
        run, parts = reference(model, optimised=True), []
        for number, feeds in enumerate(self._data.batches(size, self._count)):
            self._progress(f"evaluate: sample {number * size + 1} of {self._count}")
            try:
                parts.append(run(feeds))
            except ReferenceFailed as error:
                raise DataError(f"the data does not fit the model: {error}") from error
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def evaluate(
    original: ir.Model, changed: ir.Model, data: Dataset, samples: int | None = None, **options: Any
) -> Evaluation:
    """Run both on the first samples, or on all; `options` are those of `Judge`."""
    return Judge(original, data, samples, **options).judge(changed)


def compare_outputs(before: Array, after: Array, labels: NDArray[np.int64] | None = None) -> Evaluation:
    """Of two models, samples along the first axis."""
    rows, others = (each.astype(np.float64) for each in (before, after))
    noise = np.square(rows - others).sum()
    sqnr = float(10 * np.log10(np.square(rows).sum() / noise)) if noise else float("inf")
    cosine = mean_cosine(before, after)
    if rows.ndim < 2 or rows.shape[-1] < 2:
        return Evaluation(len(rows), sqnr, cosine)
    chosen = rows.argmax(axis=-1), others.argmax(axis=-1)
    agreement = float((chosen[0] == chosen[1]).mean())
    if labels is None or rows.ndim != 2:
        return Evaluation(len(rows), sqnr, cosine, agreement)
    right = [each == labels[: len(rows)] for each in chosen]
    top1 = float(right[0].mean()), float(right[1].mean())
    return Evaluation(len(rows), sqnr, cosine, agreement, top1, _interval(right[0], right[1]))


def _first(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _interval(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """Half the width of the interval of a difference of paired proportions."""
    lost, won, count = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    return float(NORMAL_95 * np.sqrt(max(lost + won - (lost - won) ** 2 / count, 0.0)) / count)

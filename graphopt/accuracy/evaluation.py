"""What a change of a model cost, measured: its outputs next to those of the original on real data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.accuracy.calibration import batch_size
from graphopt.accuracy.metrics import METRICS, Metric, find_metric, mean_cosine
from graphopt.accuracy.verify import ReferenceFailed, reference
from graphopt.arrays import Array
from graphopt.errors import DataError
from graphopt.feeds.data import Data, Dataset, samples_for

NORMAL_95 = 1.96
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """The first output of two models over `samples` samples.

    `sqnr_db` is the ratio of the original's power to that of the difference, of all outputs, None in JSON where nothing
    differs; `cosine` the mean over samples; `agreement` the share
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
        content = {name: list(each) if isinstance(each, tuple) else each for name, each in vars(self).items()}
        return {**content, "sqnr_db": self.sqnr_db if np.isfinite(self.sqnr_db) else None}

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

    The quality is that of all outputs, everything else that of the first one. Raises DataError where there are no samples, where
    they do not fit, where outputs are not made of samples along the first axis, and where a metric lacks something.
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
        self._size = batch_size(original, len(data))
        wanted = len(data) if samples is None else min(max(samples, self._size), len(data))
        self._count = wanted - wanted % self._size
        if not self._count:
            raise DataError(
                f"there are {wanted} sample(s) to evaluate on, one run of the model takes {self._size}"
            )
        self._original = self._outputs(original, "the data does not fit the model")
        self._metric = find_metric(metric) if isinstance(metric, str) else metric
        self._feeds = self._inputs() if self._metric not in (None, *METRICS.values()) else {}
        self._before = None if self._metric is None else self._score(self._metric, self._original)

    def judge(self, changed: ir.Model) -> Evaluation:
        """What the change cost."""
        outputs = self._outputs(changed, "ONNX Runtime does not run the changed model")
        found = compare_outputs(_first(self._original), _first(outputs), self._labels)
        metric = None
        if self._metric is not None and self._before is not None:
            metric = self._before, self._score(self._metric, outputs)
        return replace(found, sqnr_db=quality(self._original, outputs), metric=metric)

    @property
    def before(self) -> float:
        """The metric of the original; NaN without one."""
        return float("nan") if self._before is None else self._before

    @property
    def _labels(self) -> NDArray[np.int64] | None:
        return None if self._data.labels is None else self._data.labels[: self._count]

    def _score(self, metric: Metric, outputs: Mapping[str, Array]) -> float:
        return metric(outputs, self._original, self._feeds, self._labels)

    def _inputs(self) -> dict[str, Array]:
        """As many samples as are run."""
        columns = self._data.columns.items()
        return {name: np.stack([column[i] for i in range(self._count)]) for name, column in columns}

    def _outputs(self, model: ir.Model, failure: str) -> dict[str, Array]:
        run, parts = reference(model, optimised=True), []
        for number, feeds in enumerate(self._data.batches(self._size, self._count)):
            self._progress(f"evaluate: sample {number * self._size + 1} of {self._count}")
            try:
                parts.append(run(feeds))
            except ReferenceFailed as error:
                raise DataError(f"{failure}: {error}") from error
        return {name: self._joined(name, [part[name] for part in parts]) for name in parts[0]}

    def _joined(self, name: str, parts: Sequence[Array]) -> Array:
        """An output of all batches."""
        shapes = {part.shape for part in parts}
        if len(shapes) > 1 or any(part.ndim < 1 for part in parts):
            raise DataError(f"output {name!r} has no samples along its first axis, or another size each time")
        return np.concatenate(parts)


@dataclass(frozen=True)
class Splits:
    """The samples that a change learns from, those that it is judged on, and the judge; None where there are none."""

    data: Dataset | None
    held_out: Dataset | None
    judge: Judge | None

    @classmethod
    def of(
        cls,
        original: ir.Model,
        calib: Data | None,
        evaluate_on: Data | None,
        samples: int,
        *,
        preprocess: str | None = None,
        metric: str | None = None,
        progress: Progress = lambda stage: None,
    ) -> Splits:
        """Of `calib`, and of `evaluate_on` or else the same, of which the first `samples` are used then. Raises DataError."""
        data = None if calib is None else samples_for(calib, original, preprocess, samples)
        if evaluate_on is None:
            judge = None if data is None else Judge(original, data, samples, metric, progress)
            return cls(data, data, judge)
        held_out = samples_for(evaluate_on, original, preprocess, None)
        return cls(data, held_out, Judge(original, held_out, None, metric, progress))


def quality(before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    """The ratio in dB of power to that of the difference; of several outputs each counts as much."""
    shares = []
    for name, values in before.items():
        if values.dtype.kind != "f":
            continue
        exact, other = values.astype(np.float64), after[name].astype(np.float64)
        if exact.shape != other.shape:
            raise DataError(
                f"output {name!r} has shape {other.shape} instead of {exact.shape} after the change"
            )
        power, noise = np.square(exact).sum(), np.square(exact - other).sum()
        shares.append(noise / power if power else float(noise > 0))
    noise = float(np.mean(shares)) if shares else 0.0
    return float(-10 * np.log10(noise)) if noise else float("inf")


def compare_outputs(before: Array, after: Array, labels: NDArray[np.int64] | None = None) -> Evaluation:
    """Of two models, samples along the first axis."""
    rows, others = (each.astype(np.float64) for each in (before, after))
    sqnr, cosine = quality({"": rows}, {"": others}), mean_cosine(before, after)
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

"""What `graphopt cluster` does: a model with weights of a few values each, as standard ONNX, and a report of what that cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt.accuracy.evaluation import Evaluation, Judge, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.compression.clusterer import Clustered, Clusterer, Made, Recipe
from graphopt.compression.footprint import Footprint, footprint
from graphopt.compression.quantizing import DEFAULT_METRIC, SAMPLES
from graphopt.compression.recovery import Lesson, Recovery, require_recoverable
from graphopt.compression.techniques import MEASURED, Gain, try_techniques
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Data, Dataset
from graphopt.model import normalise, save

Progress = Callable[[str], None]

SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of clusters among which a search chooses."""


@dataclass(frozen=True)
class Trial:
    """What the metric lost with a number of clusters."""

    clusters: int
    drop: float


@dataclass(frozen=True)
class Clustering:
    """A model with clustered weights, and what became of it. `evaluation` is None where there was no data to judge it on."""

    model: ir.Model
    before: Footprint
    after: Footprint
    tensors: list[Clustered]
    left_out: dict[str, str]
    warnings: list[str]
    gains: list[Gain]
    trials: list[Trial]
    evaluation: Evaluation | None
    recovery: Recovery | None = None

    @property
    def weights(self) -> int:
        """How many are clustered."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """That a code takes on average, at least."""
        return sum(tensor.bits * tensor.weights for tensor in self.tensors) / max(self.weights, 1)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "tensors": [vars(tensor) for tensor in self.tensors],
            "left_out": self.left_out,
            "weights": self.weights,
            "values": sum(tensor.values for tensor in self.tensors),
            "bits_per_weight": self.bits,
            "before": vars(self.before),
            "after": vars(self.after),
            "warnings": self.warnings,
            "techniques": [gain.to_json() for gain in self.gains],
            "trials": [vars(trial) for trial in self.trials],
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
            "recovery": None if self.recovery is None else self.recovery.to_json(),
        }


def cluster(
    model: Model,
    calib: Data | None = None,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    samples: int = SAMPLES,
    workers: int = 1,
    evaluate_on: Data | None = None,
    metric: str | None = None,
    max_drop: float | None = None,
    recover_minutes: float | None = None,
    progress: Progress = lambda stage: None,
    **recipe: Any,
) -> Clustering:
    """Let the weights of each tensor share a few values, as standard ONNX.

    `recipe` are the fields of `Recipe`; `calib` is data for the inputs, the first `samples` of which are used by the techniques that
    keep the outputs near. The result is compared with the model as it was on `evaluate_on`, by default on the calibration data
    itself. With `max_drop` the number of clusters is the least power of two with which `metric`, by default agreement with the
    model as it was, loses no more. For `recover_minutes` the values learn from the model as it was. Raises GraphoptError; nothing
    is written then.
    """
    chosen = Recipe(**recipe)
    _require_sense(chosen, metric, max_drop, calib is not None or evaluate_on is not None)
    require_recoverable(recover_minutes, calib is not None)
    source = read(model)
    before = footprint(source)
    normalise(source)
    original = source.clone()
    wanted = metric or (None if max_drop is None else DEFAULT_METRIC)
    splits = Splits.of(
        original, calib, evaluate_on, samples, preprocess=preprocess, metric=wanted, progress=progress
    )
    data, judge = splits.data, splits.judge
    clusterer = Clusterer(source, chosen, data, samples, progress, workers)
    gains = _gains(clusterer, original, data, progress)
    kept = [gain.technique for gain in gains if gain.kept]
    trials = _trials(clusterer, kept, judge, max_drop)
    made = clusterer.make(kept, _fewest(trials, max_drop))
    cost = None if judge is None else judge.judge(made.model)
    lesson = Lesson(original, data, judge, recover_minutes, max_drop, workers, progress)
    last = lesson.recovered(made.model, cost)
    if output is not None:
        save(last.model, output)
    notes = [*_warnings(made, metric if judge is None else None), *last.warnings]
    return Clustering(
        last.model,
        before,
        footprint(last.model),
        made.tensors,
        clusterer.left_out,
        notes,
        gains,
        trials,
        last.evaluation,
        last.recovery,
    )


def _require_sense(recipe: Recipe, metric: str | None, max_drop: float | None, data: bool) -> None:
    """Raises GraphoptError for requests that contradict each other."""
    if metric is not None:
        find_metric(metric)
    if max_drop is None:
        return
    if recipe.clusters is not None or recipe.sqnr_db is not None:
        raise GraphoptError("--max-drop finds the number of clusters: give neither --clusters nor --sqnr")
    if not data:
        raise GraphoptError("--max-drop needs --eval or --calib DATA, on which the model is judged")


def _trials(
    clusterer: Clusterer, kept: Sequence[str], judge: Judge | None, max_drop: float | None
) -> list[Trial]:
    if judge is None or max_drop is None:
        return []
    return search(lambda clusters: judge.judge(clusterer.make(kept, clusters).model).drop, max_drop)


def _fewest(trials: Sequence[Trial], max_drop: float | None) -> int | None:
    """Clusters that keep within the budget; None where nothing was searched."""
    if max_drop is None:
        return None
    return min((trial.clusters for trial in trials if trial.drop <= max_drop), default=None)


def search(drop_of: Callable[[int], float], budget: float) -> list[Trial]:
    """Trials by bisection over `SIZES`, the least one that is within the budget among them; the drop is taken to fall as sizes grow.

    Raises GraphoptError where even the largest one loses more.
    """
    trials: list[Trial] = []

    def fits(clusters: int) -> bool:
        trials.append(Trial(clusters, drop_of(clusters)))
        return trials[-1].drop <= budget

    low, high = 0, len(SIZES)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(SIZES[middle]) else (middle + 1, high)
    if low == len(SIZES):
        raise GraphoptError(f"with {SIZES[-1]} clusters {trials[-1].drop:g} is lost still, {budget:g} may be")
    return trials


def _gains(clusterer: Clusterer, original: ir.Model, data: Dataset | None, progress: Progress) -> list[Gain]:
    """What each technique of the recipe gains on top of those before it that were kept."""
    if data is None or not clusterer.targets:
        return []
    judge = Judge(original, data, MEASURED, progress=progress)
    return try_techniques(clusterer.techniques, lambda kept: clusterer.make(kept).model, judge)


def _warnings(made: Made, unmeasured: str | None) -> list[str]:
    """What was asked for and says nothing here; a metric is `unmeasured` without data."""
    found = [] if made.tensors else ["nothing in this model can be clustered"]
    if unmeasured is not None:
        found.append(f"{unmeasured} needs --eval or --calib DATA, and was not measured")
    return found

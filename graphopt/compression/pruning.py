"""What `graphopt prune` does: a model and a target in, a smaller model and a report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.evaluation import Evaluation, Judge, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.accuracy.verify import ReferenceFailed, reference
from graphopt.compiling.building import Model, read
from graphopt.compression.latency import Latency, Meter
from graphopt.compression.pruner import Pruned, Pruner, Pruning
from graphopt.compression.pruning_targets import CHANNELS, LATENCY, Target, meeting
from graphopt.compression.recovery import Lesson, Recovered, Recovery, require_recoverable
from graphopt.errors import GraphoptError, UnreachableError
from graphopt.feeds.data import Data
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model import Statistics, normalise, save, statistics
from graphopt.passes.prune.groups import Group, Whole
from graphopt.passes.prune.schedule import counts

__all__ = ["SAMPLES", "PruningResult", "Step", "Target", "groups", "prune", "require_runs"]

Progress = Callable[[str], None]

SAMPLES = 256


@dataclass(frozen=True)
class Step:
    """A model on the way to the target."""

    statistics: Statistics
    evaluation: Evaluation | None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        cost = None if self.evaluation is None else self.evaluation.to_json()
        return {
            "macs": self.statistics.macs,
            "params": self.statistics.params,
            "bytes": self.statistics.bytes,
            "evaluation": cost,
        }


@dataclass(frozen=True)
class PruningResult:
    """A smaller model, channels before and after by group, what stayed whole and why, and what each step left.

    `steps` starts with the model as it was; then come channels removed alone, and made up for, and recovered.
    """

    model: ir.Model
    importance: str
    groups: dict[str, tuple[int, int]]
    whole: list[Whole]
    inexact: dict[str, str]
    steps: dict[str, Step]
    warnings: list[str]
    recovery: Recovery | None = None
    latency: Latency | None = None
    """Where it was asked for."""

    @property
    def gone(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of the table of what went."""
        rows = [[name, str(size), str(left)] for name, (size, left) in self.groups.items()]
        return ["group", "channels", "left"], rows

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "importance": self.importance,
            "groups": {name: {"before": size, "after": left} for name, (size, left) in self.groups.items()},
            "whole": [vars(each) for each in self.whole],
            "inexact": self.inexact,
            "steps": {name: step.to_json() for name, step in self.steps.items()},
            "warnings": self.warnings,
            "recovery": None if self.recovery is None else self.recovery.to_json(),
            "latency": None if self.latency is None else self.latency.to_json(),
        }


def prune(
    model: Model,
    target: Target,
    calib: Data | None = None,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    samples: int = SAMPLES,
    workers: int = 1,
    evaluate_on: Data | None = None,
    metric: str | None = None,
    steps: int = 1,
    recover_minutes: float | None = None,
    progress: Progress = lambda stage: None,
    **settings: Any,
) -> PruningResult:
    """Remove channels, heads and cells until a target is met, and make up for them on data.

    The target is reached in `steps`, each of which is made up for. `settings` are the fields of `Pruning`; `calib` are inputs, the
    first `samples` of which are used to rank channels and to fit what is left. Latency is that of artifacts for this machine. For `recover_minutes` the result learns from the model
    as it was. What it cost is measured on `evaluate_on`, by default on that data itself. The result has run once before it is
    written. Raises GraphoptError; nothing is written then.
    """
    chosen = Pruning(**settings)
    if metric is not None:
        find_metric(metric)
    if steps < 1:
        raise GraphoptError(f"{steps} steps are none; give 1 or more")
    require_recoverable(recover_minutes, calib is not None)
    source = read(model)
    normalise(source)
    original, before = source.clone(), statistics(source)
    splits = Splits.of(
        original, calib, evaluate_on, samples, preprocess=preprocess, metric=metric, progress=progress
    )
    data, judge = splits.data, splits.judge
    with Meter(original, chosen.sizes, progress) as meter:
        pruner = Pruner(source, chosen, data, samples, progress, workers)
        course = _Course(pruner, original, before, judge, meter)
        for number in range(steps):
            course.step(target, number, steps)
        cost = list(course.stages.values())[-1].evaluation
        lesson = Lesson(original, data, judge, recover_minutes, None, workers, progress)
        last = lesson.recovered(course.reached, cost)
        if last.recovery is not None:
            course.stages["recovered"] = Step(statistics(last.model), last.evaluation)
        require_runs(original, last.model)
        timed = LATENCY in {target.measure, chosen.schedule}
        latency = meter.compare(last.model) if timed else None
    if output is not None:
        save(last.model, output)
    return _result(course, last, data is not None, latency, target)


class _Course:
    """The way to a target: the model reached so far, what each step left, and channels before and after by group."""

    def __init__(
        self, pruner: Pruner, original: ir.Model, before: Statistics, judge: Judge | None, meter: Meter
    ) -> None:
        self.pruner, self._before, self._judge, self._meter = pruner, before, judge, meter
        self.reached = pruner.original
        self.stages = {"original": Step(before, None if judge is None else judge.judge(original))}
        self.widths: dict[str, tuple[int, int]] = {}

    def step(self, target: Target, number: int, steps: int) -> None:
        """Remove channels, and make up for them. Raises GraphoptError."""
        if number:
            self.pruner = self.pruner.of(self.reached)
        _require_groups(self.pruner, target)
        kept = meeting(self.pruner, _part(target, number, steps), self._before, self._meter.compare)
        for name, (size, left) in counts(kept).items():
            self.widths[name] = self.widths.get(name, (size, left))[0], left
        self._reach(_title("removed", number, steps), self.pruner.make(kept, correct=False))
        if self.pruner.corrects:
            self._reach(_title("corrected", number, steps), self.pruner.make(kept))

    def _reach(self, title: str, made: Pruned) -> None:
        self.reached = made.model
        cost = None if self._judge is None else self._judge.judge(made.model)
        self.stages[title] = Step(statistics(made.model), cost)


def _part(target: Target, number: int, steps: int) -> Target:
    """What is to be left by one of several steps: of the model as it was, but of channels of what the step before left."""
    power = 1 if target.measure == CHANNELS else number + 1
    return replace(target, share=target.share ** (power / steps))


def require_runs(original: ir.Model, smaller: ir.Model) -> None:
    """Raises GraphoptError where ONNX Runtime, which runs the original, does not run the result, or gives other shapes."""
    feeds = random_feeds(original)
    try:
        before = reference(original)(feeds)
    except ReferenceFailed:
        return
    after = reference(smaller)(feeds)
    if any(np.shape(after[name]) != np.shape(array) for name, array in before.items()):
        raise GraphoptError("the smaller model gives other shapes: please report the model")


def _title(what: str, number: int, steps: int) -> str:
    return what if steps == 1 else f"{what} {number + 1}"


def groups(model: Model, protect: tuple[str, ...] = ()) -> tuple[list[Group], list[Whole]]:
    """The groups of channels of a model that may be pruned, and what stays whole."""
    source = read(model)
    normalise(source)
    found = Pruner(source, Pruning(protect=protect), None, 0, lambda stage: None)
    return found.groups, list(found.structure.whole)


def _require_groups(pruner: Pruner, target: Target) -> None:
    if pruner.groups or target.share == 1:
        return
    if pruner.settings.protect:
        raise GraphoptError("every group of channels is protected, nothing is left to prune")
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in pruner.structure.whole[:3])
    raise UnreachableError(f"no channel of this model can be removed. {reasons}".strip())


def _result(
    course: _Course, last: Recovered, fitted: bool, latency: Latency | None, target: Target
) -> PruningResult:
    pruner = course.pruner
    inexact = {group.name: group.inexact for group in pruner.groups if group.inexact}
    warnings = []
    if not fitted:
        warnings.append("without --calib DATA nothing makes up for what is removed")
    if all(size == left for size, left in course.widths.values()):
        warnings.append(
            "nothing was removed: the ratio is small, or groups are narrower than what widths are rounded to"
        )
    if latency is not None and target.measure == LATENCY and latency.share > target.share:
        warnings.append(f"the last measurement is above the target, as measurements differ: {latency}")
    return PruningResult(
        last.model,
        pruner.importance,
        course.widths,
        list(pruner.structure.whole),
        inexact,
        course.stages,
        [*warnings, *last.warnings],
        last.recovery,
        latency,
    )

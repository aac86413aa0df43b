"""What `graphopt compress` does: finds the smallest or fastest artifact that loses no more than a budget."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphopt.accuracy.evaluation import Judge, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.compression import pruning
from graphopt.compression.candidates import Builder, Maker
from graphopt.compression.plans import SHARES, WAYS, Plan
from graphopt.compression.recovery import Lesson, Recovery, require_recoverable
from graphopt.compression.sensitivity import Journal
from graphopt.errors import GraphoptError, UnreachableError
from graphopt.feeds.data import Data
from graphopt.feeds.fingerprint import fingerprint
from graphopt.files import replacing
from graphopt.model import normalise

Progress = Callable[[str], None]

OBJECTIVES = ("latency", "size")

DEFAULT_METRIC = "agreement"


@dataclass(frozen=True)
class Point:
    """A plan, what the metric lost with it, and what its artifact takes; `latency` is relative to that of the model as it was. None
    where it was not compiled because it lost too much."""

    plan: Plan
    drop: float
    bytes: int | None = None
    latency: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**vars(self), "plan": str(self.plan)}


@dataclass(frozen=True)
class Compression:
    """All that was tried, and what was chosen: of what keeps within the budget the best by the objective, recovered perhaps."""

    points: list[Point]
    chosen: Point
    metric: str
    before: float
    path: Path
    warnings: list[str]
    recovery: Recovery | None = None

    @property
    def front(self) -> list[Point]:
        """Compiled points that no other one beats in drop, bytes and latency at once."""
        return [point for point in self.points if point.bytes is not None and not self._is_beaten(point)]

    def _is_beaten(self, point: Point) -> bool:
        mine = _costs(point)
        return any(
            other.bytes is not None and _costs(other) != mine and all(map(float.__le__, _costs(other), mine))
            for other in self.points
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "metric": self.metric,
            "before": self.before,
            "chosen": self.chosen.to_json(),
            "points": [point.to_json() for point in self.points],
            "front": [str(point.plan) for point in self.front],
            "warnings": self.warnings,
            "recovery": None if self.recovery is None else self.recovery.to_json(),
        }


def _costs(point: Point) -> tuple[float, ...]:
    return float(point.drop), float(point.bytes or 0), float(point.latency or 0)


def compress(
    model: Model,
    calib: Data,
    output: str | Path,
    *,
    max_drop: float,
    objective: str = "latency",
    target: str = "native",
    preprocess: str | None = None,
    samples: int = pruning.SAMPLES,
    workers: int = 1,
    evaluate_on: Data | None = None,
    metric: str | None = None,
    recover_minutes: float | None = None,
    journal: str | Path | None = None,
    progress: Progress = lambda stage: None,
    **options: Any,
) -> Compression:
    """Prune, thin out, quantise and cluster a model as far as `metric`, by default agreement with it, loses no more than `max_drop`.

    `calib` is data for the inputs, from which everything learns; what is lost is measured on `evaluate_on`, by default the same. For
    `recover_minutes` what was chosen learns from the model as it was. `options` are those of `building.Options`, with which
    candidates are compiled. `journal` keeps what was measured: a search that was interrupted goes on there. Raises GraphoptError;
    nothing is written to `output` then.
    """
    _require_sense(objective, max_drop, metric)
    require_recoverable(recover_minutes, data=True)
    source = read(model)
    normalise(source)
    metric = metric or DEFAULT_METRIC
    splits = Splits.of(
        source, calib, evaluate_on, samples, preprocess=preprocess, metric=metric, progress=progress
    )
    data, judge = splits.data, splits.judge
    assert data is not None
    assert judge is not None
    subject = fingerprint(
        source, (objective, metric, samples, target, sorted(options.items())), data, splits.held_out
    )
    lesson = Lesson(source, data, judge, recover_minutes, max_drop, workers, progress)
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(source, data, samples, workers, progress)
        builder = Builder(Path(folder), maker, target, options, progress)
        builder.artifact(Plan())
        diary = Journal(None if journal is None else Path(journal), subject)
        search = _Search(maker, builder, judge, diary, max_drop, progress)
        for way in WAYS[objective]:
            search.follow(way)
        points, chosen = search.points, _best(search.points, objective, max_drop)
        recovered, recovery = _recovered(chosen, maker, builder, lesson)
        if recovered is not None:
            points, chosen = [*points, recovered], recovered
        with builder.artifact(chosen.plan).open("rb") as made, replacing(Path(output)) as file:
            shutil.copyfileobj(made, file)
    warnings = [] if recovery is None else recovery.warnings
    return Compression(points, chosen, metric, judge.before, Path(output), warnings, recovery)


def _require_sense(objective: str, max_drop: float, metric: str | None) -> None:
    if objective not in OBJECTIVES:
        raise GraphoptError(f"unknown objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
    if not max_drop >= 0:
        raise GraphoptError(f"a drop of {max_drop:g} cannot be asked for; give 0 or more")
    if metric is not None:
        find_metric(metric)


@dataclass
class _Search:
    """Finds along each way the fewest multiply-adds that keep within the budget. What goes as far as a plan that lost too much is not
    tried."""

    maker: Maker
    builder: Builder
    judge: Judge
    diary: Journal
    budget: float
    progress: Progress

    def __post_init__(self) -> None:
        self.points: list[Point] = []
        self._failed: list[Plan] = []

    def follow(self, way: Plan) -> None:
        """By bisection, if the way keeps within the budget with all multiply-adds."""
        plans = [replace(way, share=share) for share in SHARES]
        plans = [plan for plan in plans if not any(map(plan.goes_as_far_as, self._failed))]
        if not plans or not self._fits(plans[0]):
            return
        enough, too_few = 0, len(plans)
        while too_few - enough > 1:
            middle = (enough + too_few) // 2
            enough, too_few = (middle, too_few) if self._fits(plans[middle]) else (enough, middle)

    def _fits(self, plan: Plan) -> bool:
        """Whether a plan keeps within the budget; it is measured then."""
        self.progress(f"search: {plan}")
        drop = self.diary.remember(f"drop {plan}", lambda: self._drop(plan))
        if not drop <= self.budget:
            self._failed.append(plan)
        if drop < math.inf:
            self.points.append(self._measured(plan, drop) if drop <= self.budget else Point(plan, drop))
        return drop <= self.budget

    def _drop(self, plan: Plan) -> float:
        """What the metric loses; infinite where there is no such model."""
        try:
            return self.judge.judge(self.maker.make(plan)).drop
        except UnreachableError:
            return math.inf

    def _measured(self, plan: Plan, drop: float) -> Point:
        size = self.diary.remember(f"bytes {plan}", lambda: float(self.builder.size(plan)))
        latency = self.diary.remember(f"latency {plan}", lambda: self.builder.latency(plan))
        return Point(plan, drop, int(size), latency)


def _best(points: Sequence[Point], objective: str, budget: float) -> Point:
    """Raises GraphoptError where nothing that was tried keeps within the budget."""
    fitting = [point for point in points if point.bytes is not None]
    if not fitting:
        least = min((point.drop for point in points), default=math.inf)
        raise GraphoptError(f"{least:g} is lost at least, {budget:g} may be")
    worth: Callable[[Point], float] = (
        (lambda point: point.latency or 1.0)
        if objective == "latency"
        else (lambda point: float(point.bytes or 0))
    )
    return min(fitting, key=worth)


def _recovered(
    chosen: Point, maker: Maker, builder: Builder, lesson: Lesson
) -> tuple[Point | None, Recovery | None]:
    """What was chosen after it has learned, if that is better, and what it learned. Nothing of it is kept in the journal: minutes of
    learning do not come out the same twice."""
    if lesson.minutes is None or lesson.judge is None or chosen.plan == Plan():
        return None, None
    model = maker.make(chosen.plan)
    last = lesson.recovered(model, lesson.judge.judge(model))
    if last.recovery is None or not last.recovery.kept:
        return None, last.recovery
    plan = replace(chosen.plan, recovered=True)
    size = builder.artifact(plan, last.model).stat().st_size
    return Point(plan, last.recovery.after.drop, size, builder.latency(plan)), last.recovery

"""What `graphopt compress` does: finds the smallest or fastest artifact that loses no more than a budget."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt import api
from graphopt.accuracy.evaluation import Judge, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.artifacts.artifact import replacing
from graphopt.artifacts.running import random_feeds
from graphopt.compiling.building import Model, Options, read
from graphopt.compression import clustering, pruning, quantizing
from graphopt.compression.sensitivity import Journal
from graphopt.errors import GraphoptError, UnreachableError
from graphopt.feeds.data import Data, Dataset
from graphopt.feeds.fingerprint import fingerprint
from graphopt.model import normalise
from graphopt.timing.bench import Schedule, default_threads, measure
from graphopt.timing.measuring import OURS, BackendLoader

Progress = Callable[[str], None]

OBJECTIVES = ("latency", "size")

DEFAULT_METRIC = "agreement"

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of the multiply-adds that are left, most first."""

SCHEDULE = Schedule(runs=20, blocks=7, warmup=5)
"""Of the timing of candidates, in turns with the model as it was."""


@dataclass(frozen=True)
class Plan:
    """A way to make a model smaller: the share of multiply-adds that is left, clusters of weights, int8 or not."""

    share: float = 1.0
    clusters: int | None = None
    scheme: str | None = None

    def __str__(self) -> str:
        parts = [
            "" if self.share == 1 else f"{100 * self.share:.0f} % of multiply-adds",
            "" if self.clusters is None else f"{self.clusters} clusters",
            self.scheme or "",
        ]
        return ", ".join(part for part in parts if part) or "as it was"


WAYS = {
    "latency": (Plan(), Plan(scheme="int8")),
    "size": (Plan(scheme="int8"), Plan(clusters=64), Plan(clusters=32), Plan(clusters=16)),
}
"""What is combined with pruning for each objective."""


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
    """All that was tried, and what was chosen: of what keeps within the budget the best by the objective."""

    points: list[Point]
    chosen: Point
    metric: str
    before: float
    path: Path
    warnings: list[str]

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
    journal: str | Path | None = None,
    progress: Progress = lambda stage: None,
    **options: Any,
) -> Compression:
    """Prune, cluster and quantise a model as far as `metric`, by default agreement with it, loses no more than `max_drop`.

    `calib` is data for the inputs, from which everything learns; what is lost is measured on `evaluate_on`, by default the same.
    `options` are those of `building.Options`, with which candidates are compiled. `journal` keeps what was measured: a search that
    was interrupted goes on there. Raises GraphoptError; nothing is written to `output` then.
    """
    _require_sense(objective, max_drop, metric)
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
    with tempfile.TemporaryDirectory() as folder:
        maker = _Maker(source, data, samples, workers, progress)
        builder = _Builder(Path(folder), source, target, options, progress)
        builder.artifact(Plan(), maker)
        diary = Journal(None if journal is None else Path(journal), subject)
        points = list(_explore(WAYS[objective], maker, judge, builder, diary, max_drop, progress))
        chosen = _best(points, objective, max_drop)
        with builder.artifact(chosen.plan, maker).open("rb") as made, replacing(Path(output)) as file:
            shutil.copyfileobj(made, file)
    return Compression(points, chosen, metric, judge.before, Path(output), [])


def _require_sense(objective: str, max_drop: float, metric: str | None) -> None:
    if objective not in OBJECTIVES:
        raise GraphoptError(f"unknown objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
    if not max_drop >= 0:
        raise GraphoptError(f"a drop of {max_drop:g} cannot be asked for; give 0 or more")
    if metric is not None:
        find_metric(metric)


class _Maker:
    """Makes models by plans; one that is pruned is kept, since several plans start from it."""

    def __init__(
        self, source: ir.Model, data: Dataset, samples: int, workers: int, progress: Progress
    ) -> None:
        self._source, self._progress = source, progress
        self._shared: dict[str, Any] = {
            "calib": data,
            "samples": samples,
            "workers": workers,
            "progress": progress,
        }
        self._pruned = cache(self._prune)
        self._last: tuple[Plan, ir.Model] = (Plan(), source)

    def make(self, plan: Plan) -> ir.Model:
        """The model of a plan; the last one is kept."""
        if self._last[0] != plan:
            self._last = plan, self._make(plan)
        return self._last[1]

    def _make(self, plan: Plan) -> ir.Model:
        model = self._pruned(plan.share)
        if plan.clusters is not None:
            model = clustering.cluster(model.clone(), clusters=plan.clusters, **self._shared).model
        if plan.scheme is not None:
            model = quantizing.quantize(model.clone(), scheme=plan.scheme, **self._shared).model
        return model

    def _prune(self, share: float) -> ir.Model:
        if share == 1:
            return self._source
        target = pruning.Target("macs", share)
        return pruning.prune(
            self._source.clone(), target, schedule="global", round_to=8, **self._shared
        ).model


class _Builder:
    """Compiles models by plans, and measures them next to the model as it was."""

    def __init__(
        self, folder: Path, source: ir.Model, target: str, options: dict[str, Any], progress: Progress
    ) -> None:
        Options(**options)
        self._folder, self._source, self._target = folder, source, target
        self._options, self._progress = options, progress

    def artifact(self, plan: Plan, maker: _Maker) -> Path:
        """The path of the artifact of a plan."""
        path = self._folder / f"{plan.share:g}-{plan.clusters}-{plan.scheme}.gopt"
        if not path.exists():
            self._progress(f"compile: {plan}")
            api.build(maker.make(plan).clone(), path, self._target, progress=self._progress, **self._options)
        return path

    def latency(self, plan: Plan, maker: _Maker) -> float:
        """The median of a plan relative to that of the model as it was, measured in turns."""
        if plan == Plan():
            return 1.0
        paths = {"before": self.artifact(Plan(), maker), "after": self.artifact(plan, maker)}
        threads = default_threads()
        loaders = {name: BackendLoader(OURS, path, threads) for name, path in paths.items()}
        with api.load(paths["before"]) as compiled:
            feeds = random_feeds(compiled.variants[0])
        found = measure(str(plan), loaders, feeds, threads=threads, schedule=SCHEDULE).backends
        for each in found.values():
            if each.error:
                raise GraphoptError(f"{plan}: {each.error}")
        return found["after"].median_ms / found["before"].median_ms


def _explore(
    ways: Sequence[Plan],
    maker: _Maker,
    judge: Judge,
    builder: _Builder,
    diary: Journal,
    budget: float,
    progress: Progress,
) -> Iterator[Point]:
    """For each way fewer and fewer multiply-adds, until the metric loses too much or no channel is left to remove."""
    for way in ways:
        for share in SHARES:
            plan = replace(way, share=share)
            progress(f"search: {plan}")
            try:
                drop = diary.remember(f"drop {plan}", lambda plan=plan: judge.judge(maker.make(plan)).drop)  # type: ignore[misc]
            except UnreachableError:
                break
            if not drop <= budget:
                yield Point(plan, drop)
                break
            yield _measured(plan, drop, maker, builder, diary)


def _measured(plan: Plan, drop: float, maker: _Maker, builder: _Builder, diary: Journal) -> Point:
    size = diary.remember(f"bytes {plan}", lambda: float(builder.artifact(plan, maker).stat().st_size))
    latency = diary.remember(f"latency {plan}", lambda: builder.latency(plan, maker))
    return Point(plan, drop, int(size), latency)


def _best(points: Sequence[Point], objective: str, budget: float) -> Point:
    """Raises GraphoptError where nothing that was tried keeps within the budget."""
    fitting = [point for point in points if point.bytes is not None]
    if not fitting:
        least = min(point.drop for point in points)
        raise GraphoptError(f"{least:g} is lost at least, {budget:g} may be")
    worth: Callable[[Point], float] = (
        (lambda point: point.latency or 1.0)
        if objective == "latency"
        else (lambda point: float(point.bytes or 0))
    )
    return min(fitting, key=worth)

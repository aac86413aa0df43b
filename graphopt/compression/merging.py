"""What `graphopt prune --share` does: neurons that are nearly equal, or multiples of one another, become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from graphopt.accuracy.calibration import Observer, collect
from graphopt.accuracy.evaluation import Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.compression.pruner import Pruner, Pruning
from graphopt.compression.pruning import SAMPLES, PruningResult, Step
from graphopt.compression.recovery import Lesson, require_recoverable
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Data, Dataset
from graphopt.model import normalise, save, statistics
from graphopt.passes.prune.groups import Group, Whole
from graphopt.passes.prune.removal import Kept
from graphopt.passes.prune.schedule import counts
from graphopt.passes.prune.sharing import (
    Products,
    Shared,
    by_activations,
    by_weights,
    fold,
    observers,
    why_not,
)

Progress = Callable[[str], None]


def merge(
    model: Model,
    tolerance: float,
    calib: Data | None = None,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    samples: int = SAMPLES,
    workers: int = 1,
    protect: Sequence[str] = (),
    evaluate_on: Data | None = None,
    metric: str | None = None,
    recover_minutes: float | None = None,
    progress: Progress = lambda stage: None,
) -> PruningResult:
    """Merge channels, heads and cells that are multiples of others, but for `tolerance` of their own size.

    With `calib` it is what they give on the first `samples` of it that tells; without, their weights. What they are read with is
    added up. `protect` are patterns of nodes and operators whose channels stay. What that cost is measured on `evaluate_on`, by default
    on the same data. For `recover_minutes` the result learns from the model as it was. Raises GraphoptError; nothing is written then.
    """
    _require_sense(tolerance, metric)
    require_recoverable(recover_minutes, calib is not None)
    source = read(model)
    normalise(source)
    original, before = source.clone(), statistics(source)
    splits = Splits.of(
        original, calib, evaluate_on, samples, preprocess=preprocess, metric=metric, progress=progress
    )
    data, judge = splits.data, splits.judge
    pruner = Pruner(source, Pruning(protect=tuple(protect)), None, samples, progress, workers)
    reasons = {group.name: why_not(pruner.structure, group) for group in pruner.groups}
    groups = [group for group in pruner.groups if reasons[group.name] is None]
    kept = _folded(groups, _shared(pruner, groups, tolerance, data, samples, workers, progress))
    made = pruner.make(kept).model
    steps = {
        "original": Step(before, None if judge is None else judge.judge(original)),
        "shared": Step(statistics(made), None if judge is None else judge.judge(made)),
    }
    lesson = Lesson(original, data, judge, recover_minutes, None, workers, progress)
    last = lesson.recovered(made, steps["shared"].evaluation)
    if last.recovery is not None:
        steps["recovered"] = Step(statistics(last.model), last.evaluation)
    if output is not None:
        save(last.model, output)
    unshared = [
        Whole(each.name, each.size, reasons[each.name] or "") for each in pruner.groups if reasons[each.name]
    ]
    return PruningResult(
        last.model,
        "sharing",
        dict(counts(kept)),
        [*pruner.structure.whole, *unshared],
        {},
        steps,
        [*_warnings(kept), *last.warnings],
        last.recovery,
    )


def _folded(groups: Sequence[Group], shared: Mapping[str, Shared]) -> Kept:
    """The channels that stay, which are read in place of the others now."""
    for group in groups:
        fold(group, shared[group.name])
    return {name: each.kept for name, each in shared.items()}


def _warnings(kept: Kept) -> list[str]:
    """What a user should know."""
    merged = any(not each.all() for each in kept.values())
    return [] if merged else ["no neurons are that much alike: nothing was merged"]


def _require_sense(tolerance: float, metric: str | None) -> None:
    if not 0 <= tolerance < 1 or math.isnan(tolerance):
        raise GraphoptError(f"a tolerance of {tolerance:g}: give at least 0 and less than 1")
    if metric is not None:
        find_metric(metric)


def _shared(
    pruner: Pruner,
    groups: Sequence[Group],
    tolerance: float,
    data: Dataset | None,
    samples: int,
    workers: int,
    progress: Progress,
) -> dict[str, Shared]:
    """Which channels stand for which, by the names of groups."""
    if data is None:
        return {group.name: by_weights(pruner.structure, group, tolerance) for group in groups}
    seen: dict[str, list[Products]] = {}
    points: dict[str, list[Observer]] = {}
    for group in groups:
        for place, products in observers(group):
            seen.setdefault(group.name, []).append(products)
            points.setdefault(place.data.value.name or "", []).append(products)
    if points:
        collect(pruner.original, points, data, samples, progress, workers)
    return {name: by_activations(each, tolerance) for name, each in seen.items()}

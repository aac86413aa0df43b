"""Tunes a model: extracts its tasks, searches, and says what was gained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import onnx_ir as ir

from graphopt.backends.targets import Target
from graphopt.backends.tune.builders import Builders, Pool
from graphopt.backends.tune.database import Database
from graphopt.backends.tune.in_model import measure_in_model
from graphopt.backends.tune.places import Place
from graphopt.backends.tune.ray_builders import RayBuilders
from graphopt.backends.tune.search import Search, State, short
from graphopt.backends.tune.tasks import Tasks, extract
from graphopt.timing.tuning import Budget, TunedTask, TuningReport

LEAST_FLUSH, MOST_FLUSH = 1 << 21, 48 << 20
"""Bounds of what is read between two runs of a candidate: as many bytes as the model has weights."""


def tune_models(
    models: Sequence[ir.Model],
    target: Target,
    database: Database,
    budget: Budget,
    place: Place,
    ray: str | None,
    progress: Callable[[str], None],
) -> TuningReport:
    """Tune the shape variants of a model for the machine of `place`; hosts of the Ray cluster at `ray` build, or else this one. Kernels
    of GPUs are measured alone."""
    found = extract(models, target)
    with _builders(ray) as builders:
        search = Search(found.tasks, target, database, builders, flush_bytes(found))
        search.run(budget, place, progress)
    workloads = [task.workload for task in found.tasks]
    for model in () if target.device else models:
        measure_in_model(model, workloads, target, database, place, progress)
    tasks = [task for state in search.states if (task := _describe(state, target, database)) is not None]
    return TuningReport(search.trials, sorted(tasks, key=lambda task: -task.count * task.rule_us))


def _builders(ray: str | None) -> Pool:
    return Builders(len(os.sched_getaffinity(0))) if ray is None else RayBuilders(ray)


def flush_bytes(found: Tasks) -> int:
    """Bytes that are read between two runs of a candidate."""
    return min(max(found.weights_bytes, LEAST_FLUSH), MOST_FLUSH)


def _describe(state: State, target: Target, database: Database) -> TunedTask | None:
    """The rule's schedule and the best one: in the model, or alone where they are the same. None where nothing worked."""
    name, count = short(state.task.workload), state.task.count
    times = database.times_in_model(target.name, state.task.workload)
    for config, spent in times:
        rule_us = next((other for known, other in times if known == state.rule), None)
        if spent is not None and rule_us is not None:
            return TunedTask(name, count, rule_us, spent, dict(config))
    if state.best is None or state.rule_us is None:
        return None
    return TunedTask(name, count, state.rule_us, state.best[1], dict(state.best[0]))

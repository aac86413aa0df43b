"""Tunes a model: extracts its tasks, searches, and says what was gained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import onnx_ir as ir

from graphopt.backends.targets import Target
from graphopt.backends.tune.builders import Builders
from graphopt.backends.tune.database import Database
from graphopt.backends.tune.search import Search, State, savings, short
from graphopt.backends.tune.tasks import Tasks, extract
from graphopt.tuning import Budget, TunedTask, TuningReport

LEAST_FLUSH, MOST_FLUSH = 1 << 21, 48 << 20
"""Bounds of what is read between two runs of a candidate: as many bytes as the model has weights."""


def tune_models(
    models: Sequence[ir.Model],
    target: Target,
    database: Database,
    budget: Budget,
    threads: int,
    progress: Callable[[str], None],
) -> TuningReport:
    """Tune the shape variants of a model on this machine."""
    found = extract(models, target.lanes)
    with Builders(len(os.sched_getaffinity(0))) as builders:
        search = Search(found.tasks, target, database, builders, flush_bytes(found))
        search.run(budget, threads, progress)
    tasks = [_describe(state, rule, best) for state, rule, best in savings(search.states)]
    return TuningReport(search.trials, sorted(tasks, key=lambda task: -task.count * task.rule_us))


def flush_bytes(found: Tasks) -> int:
    """Bytes that are read between two runs of a candidate."""
    return min(max(found.weights_bytes, LEAST_FLUSH), MOST_FLUSH)


def _describe(state: State, rule_us: float, best_us: float) -> TunedTask:
    assert state.best is not None
    return TunedTask(short(state.task.workload), state.task.count, rule_us, best_us, dict(state.best[0]))

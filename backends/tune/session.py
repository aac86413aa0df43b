"""Tunes a model: extracts its tasks, searches, and says what was gained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphopt.backends.targets import Target
from graphopt.backends.tune.builders import Builders
from graphopt.backends.tune.database import Database
from graphopt.backends.tune.search import Budget, Search, State, savings, short
from graphopt.backends.tune.tasks import extract

LEAST_FLUSH, MOST_FLUSH = 1 << 21, 48 << 20
"""Bytes that are read between two runs of a candidate: as many as the model has weights, within these bounds."""


@dataclass(frozen=True)
class TunedTask:
    """A task, how often the model computes it, and the microseconds of the rule's and of the best schedule."""

    name: str
    count: int
    rule_us: float
    best_us: float
    schedule: dict[str, Any]


@dataclass(frozen=True)
class Tuning:
    """What a search did."""

    trials: int
    tasks: list[TunedTask]

    @property
    def rule_us(self) -> float:
        """Microseconds of all tasks by rules."""
        return sum(task.count * task.rule_us for task in self.tasks)

    @property
    def best_us(self) -> float:
        """Microseconds of all tasks with the best schedules."""
        return sum(task.count * task.best_us for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "trials": self.trials,
            "rule_us": self.rule_us,
            "best_us": self.best_us,
            "tasks": [vars(task) for task in self.tasks],
        }


def tune_models(
    models: Sequence[ir.Model],
    target: Target,
    database: Database,
    budget: Budget,
    threads: int,
    progress: Callable[[str], None],
) -> Tuning:
    """Tune the shape variants of a model on this machine."""
    found = extract(models, target.lanes)
    flush = min(max(found.weights_bytes, LEAST_FLUSH), MOST_FLUSH)
    with Builders(len(os.sched_getaffinity(0))) as builders:
        search = Search(found.tasks, target, database, builders, flush)
        search.run(budget, threads, progress)
    tasks = [_describe(state, rule, best) for state, rule, best in savings(search.states)]
    return Tuning(search.trials, sorted(tasks, key=lambda task: -task.count * task.rule_us))


def _describe(state: State, rule_us: float, best_us: float) -> TunedTask:
    assert state.best is not None
    return TunedTask(short(state.task.workload), state.task.count, rule_us, best_us, dict(state.best[0]))

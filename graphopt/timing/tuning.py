"""What a user says of tuning, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Budget:
    """What ends a search, unless gains fade before: trials, seconds."""

    trials: int
    seconds: float = float("inf")


@dataclass(frozen=True)
class Tuning:
    """Where measured schedules are kept. With a `budget` they are searched for first, on `threads` threads, built by the Ray
    cluster at the address `ray` if that is given, and measured on `device` if not here, or on several of one kind, separated by commas; `required` ones must be there."""

    database: Path
    budget: Budget | None = None
    threads: int | None = None
    required: bool = False
    ray: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class TunedTask:
    """A task, how often the model computes it, and the microseconds of the rule's and of the best schedule."""

    name: str
    count: int
    rule_us: float
    best_us: float
    schedule: dict[str, Any]


@dataclass(frozen=True)
class TuningReport:
    """What a search did."""

    trials: int
    tasks: list[TunedTask]

    def __str__(self) -> str:
        saved = 100 * (1 - self.best_us / self.rule_us) if self.rule_us else 0.0
        return f"{self.trials} trials; {len(self.tasks)} workloads, {saved:.1f} % faster than by rules"

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

"""The last step of what gives up accuracy: for some minutes the result learns to compute what the model did before."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphopt.accuracy.evaluation import Evaluation, Judge
from graphopt.compression.distilling import Distillation, recover
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Recovery:
    """What was learned, and the result before and after it next to the model as it was; `kept` where that is a gain."""

    learning: Distillation
    before: Evaluation
    after: Evaluation
    kept: bool

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        gained = bool(self.learning.learned.best)
        if gained and not self.kept:
            return ["what was recovered loses more than --max-drop: the weights are those before"]
        return self.learning.warnings

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            **self.learning.to_json(),
            "warnings": self.warnings,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "kept": self.kept,
        }


@dataclass(frozen=True)
class Recovered:
    """The model that is left, what it cost, and what was won back; None where there was no data, or nobody asked."""

    model: ir.Model
    evaluation: Evaluation | None
    recovery: Recovery | None = None

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        return [] if self.recovery is None else self.recovery.warnings


def require_recoverable(minutes: float | None, data: bool) -> None:
    """Raises GraphoptError for minutes that are none, and where there is nothing to learn on or with."""
    if minutes is None:
        return
    if not 0 < minutes < math.inf:
        raise GraphoptError(f"--recover {minutes:g}: give a number of minutes above 0")
    if not data:
        raise GraphoptError("--recover needs --calib DATA, on which the model learns")
    import graphopt.training  # noqa: F401


@dataclass(frozen=True)
class Lesson:
    """How models that are made of `original` learn from it: on all of `data` for `minutes`, before `judge` and within `max_drop`.

    Without minutes, which is without data as well, nobody learns.
    """

    original: ir.Model
    data: Dataset | None
    judge: Judge | None
    minutes: float | None
    max_drop: float | None
    workers: int
    progress: Progress

    def recovered(self, model: ir.Model, before: Evaluation | None) -> Recovered:
        """A model that was judged as `before`, with what it learned if that is better on samples that were held out. Raises
        GraphoptError."""
        if self.minutes is None or self.data is None or self.judge is None or before is None:
            return Recovered(model, before)
        learning = recover(
            model, self.original, self.data, self.minutes, workers=self.workers, progress=self.progress
        )
        after = self.judge.judge(learning.model)
        kept = learning.learned.best > 0 and (self.max_drop is None or after.drop <= self.max_drop)
        recovery = Recovery(learning, before, after, kept)
        return Recovered(learning.model, after, recovery) if kept else Recovered(model, before, recovery)

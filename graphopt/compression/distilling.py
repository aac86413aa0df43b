"""What `graphopt distill` does: student, teacher and data in, the student with better weights and a report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.accuracy.evaluation import Evaluation, Judge
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset, load_dataset
from graphopt.feeds.fingerprint import fingerprint
from graphopt.model import normalise, save

if TYPE_CHECKING:
    from graphopt.training.distillation import Checkpoint, Goal, Learned, Plan

Progress = Callable[[str], None]
Data = str | Path | Dataset

LOOKED_AT = 64
"""Samples by which a checkpoint knows its data."""


@dataclass(frozen=True)
class Distillation:
    """A student that has learned. `before` and `after` compare it with its teacher; None where nobody asked, and in processes
    other than the first."""

    model: ir.Model
    learned: Learned
    before: Evaluation | None = None
    after: Evaluation | None = None

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        if self.learned.best:
            return []
        return ["nothing was gained on held-out samples: the student is as it came"]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        learned = self.learned
        return {
            "rounds": [vars(each) for each in learned.rounds],
            "best_round": learned.best,
            "epochs": learned.epochs,
            "compared": [vars(term) for term in learned.terms],
            "augmentation": list(learned.augmentation),
            "warnings": self.warnings,
            "before": None if self.before is None else self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
        }


def distill(
    student: Model,
    teacher: Model | None,
    data: Data,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    evaluate_on: Data | None = None,
    metric: str | None = None,
    checkpoint: str | Path | None = None,
    workers: int = 1,
    progress: Progress = lambda stage: None,
    **options: Any,
) -> Distillation:
    """Let `student` learn to compute what `teacher` does on `data`; what it was compressed to stays (`training.distillation`).

    `options` are the fields of `Goal` and `Plan`. Without a teacher it learns the labels alone. Both are compared on `evaluate_on`, by
    default on the samples of `data` that nothing was learned on. Learning goes on from `checkpoint`, if that is there; `workers`
    processes make batches. Raises GraphoptError; nothing but the checkpoint is written then.
    """
    from graphopt.training.distillation import paired, run_size, split

    goal, plan = _wishes(options, teacher is None)
    if metric is not None:
        find_metric(metric)
    learner = _normal(student)
    original = learner.clone() if teacher is None else paired(_normal(teacher), learner)
    samples = _dataset(data, learner, preprocess)
    judged = None if evaluate_on is None else _dataset(evaluate_on, learner, preprocess)
    parts = split(samples, run_size(learner, original), plan.seed)
    before = learner.clone()
    learned = _learn(learner, original, parts, goal, plan, checkpoint, workers, progress)
    if not learned.first:
        return Distillation(learner, learned)
    judge = Judge(original, judged or parts[1], metric=metric, progress=progress)
    done = Distillation(learner, learned, judge.judge(before), judge.judge(learner))
    if output is not None:
        save(learner, output)
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return done


def recover(
    student: ir.Model,
    teacher: ir.Model,
    data: Dataset,
    minutes: float,
    *,
    workers: int = 1,
    progress: Progress = lambda stage: None,
    **options: Any,
) -> Distillation:
    """Wins back, in so many minutes, what a compression of `teacher` to `student` has cost; nothing is compared, and both stay.

    `options` are other fields of `Goal` and `Plan`. Raises GraphoptError.
    """
    from graphopt.training.distillation import paired, run_size, split

    goal, plan = _wishes({**options, "minutes": minutes}, alone=False)
    learner = _normal(student)
    original = paired(_normal(teacher), learner)
    parts = split(data, run_size(learner, original), plan.seed)
    learned = _learn(learner, original, parts, goal, plan, None, workers, progress)
    return Distillation(learner, learned)


def _wishes(options: dict[str, Any], alone: bool) -> tuple[Goal, Plan]:
    """Without a teacher there are labels alone."""
    from graphopt.training.distillation import RATE_ALONE, Goal, Plan

    goals = {field.name for field in fields(Goal)}
    wanted = {name: value for name, value in options.items() if name in goals}
    if alone and not wanted.get("labels"):
        raise GraphoptError("without --teacher there are only --labels to learn from")
    goal = Goal(**(wanted | {"alpha": 1.0} if alone else wanted))
    usual = {"rate": RATE_ALONE} if alone else {}
    rest = {name: value for name, value in options.items() if name not in goals}
    return goal, Plan(**(usual | rest))


def _learn(
    student: ir.Model,
    teacher: ir.Model,
    parts: tuple[Dataset, Dataset],
    goal: Goal,
    plan: Plan,
    checkpoint: str | Path | None,
    workers: int,
    progress: Progress,
) -> Learned:
    from graphopt.training.distillation import distil

    kept = None if checkpoint is None else _checkpoint(Path(checkpoint), student, teacher, parts, goal, plan)
    return distil(student, teacher, parts, goal, plan, checkpoint=kept, workers=workers, progress=progress)


def _checkpoint(
    path: Path, student: ir.Model, teacher: ir.Model, parts: tuple[Dataset, Dataset], goal: Goal, plan: Plan
) -> Checkpoint:
    from graphopt.training.distillation import Checkpoint

    sizes = tuple(len(part) for part in parts)
    seen = parts[0].select(range(min(LOOKED_AT, sizes[0])))
    subject = fingerprint(student, (goal, plan.course, sizes, fingerprint(teacher, ())), seen)
    return Checkpoint(path, subject)


def _normal(model: Model) -> ir.Model:
    source = read(model)
    normalise(source)
    return source


def _dataset(data: Data, model: ir.Model, preprocess: str | None) -> Dataset:
    return data if isinstance(data, Dataset) else load_dataset(Path(data), model.graph.inputs, preprocess)

"""A student learns from its teacher."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.training.distillation.augmentation import Images, suitable
from graphopt.training.distillation.batches import Source, in_order, stream
from graphopt.training.distillation.checkpoints import Checkpoint
from graphopt.training.distillation.loop import Course, Learner, Round
from graphopt.training.distillation.objective import Objective, Term, make_objective
from graphopt.training.distillation.ranks import Ranks, launched
from graphopt.training.distillation.recipe import Goal, Plan
from graphopt.training.distillation.schedule import Budget, round_steps
from graphopt.training.distillation.stages import make_stages
from graphopt.training.distillation.student import Student
from graphopt.training.distillation.teacher import Teacher, fixed_size

FEWEST_FOR_STATISTICS = 8
"""Samples of a run below which they have no statistics worth learning from."""


@dataclass(frozen=True)
class Learned:
    """What became of it: the rounds, of which the first is the student as it came and `best` the one that was kept; the epochs that
    it took; what was compared; what was done to images; and whether this process is the one that writes and reports."""

    rounds: list[Round]
    best: int
    epochs: float
    terms: list[Term]
    augmentation: tuple[str, ...]
    first: bool


def distil(
    student: ir.Model,
    teacher: ir.Model,
    data: tuple[Dataset, Dataset],
    goal: Goal,
    plan: Plan,
    *,
    checkpoint: Checkpoint | None = None,
    workers: int = 1,
    progress: Callable[[str], None] = lambda stage: None,
) -> Learned:
    """Trains the weights of `student` in place until its values are like those of `teacher`, as far as `goal` and `plan` go.

    Both are in normal form, their inputs and outputs have the same names (`paired`). `data` are samples to learn on and samples that
    judge (`split`). What the student was made for stays: shapes, zeros of weights, shared weights, integers. The state that is judged
    best is kept, and that is the student as it came if nothing is gained. With `epochs` the same arguments give the same weights,
    on the same number of threads; a `checkpoint` that is there is gone on from. Raises UnsupportedError for operators that cannot
    be run in torch, GraphoptError where models do not fit together or the loss is no number.
    """
    learned, judging = data
    objective = _objective(student, teacher, learned, goal)
    stages = make_stages(student, teacher, objective, plan.blocks)
    wanted = dict.fromkeys(name for stage in stages for name in stage.objective.teacher_values)
    augmentation = _augmentation(student, goal, plan)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _deterministic(device), launched(device) as ranks, tempfile.TemporaryDirectory() as folder:
        progress("learn: prepare")
        asked = Teacher.of(teacher, list(wanted), Path(folder) / "teacher.onnx")
        size = _batch(plan.batch, len(learned), run_size(student, teacher), ranks)
        images = Images.of(student)
        shared = (ranks.rank, ranks.size)
        source = Source(learned, asked, size, images, augmentation, plan.seed, shared).remembering()
        course = Course(
            stages,
            plan,
            Budget.of(plan, source.steps),
            source.steps,
            round_steps(source.steps),
            fixed_size(student),
            ranks,
            checkpoint,
            progress,
        )
        module = Student(student, _statistics(student, size // ranks.size, plan), device)
        learner = Learner(module, course, list(in_order(judging, asked, size)))
        learner.resume()
        with stream(source, learner.progress.step, workers) as batches:
            learner.learn(batches)
        module.write(student)
    done = learner.progress
    epochs = done.step / source.steps
    return Learned(done.rounds, done.winner, epochs, list(objective.terms), augmentation, ranks.first)


def run_size(*models: ir.Model) -> int:
    """The fewest samples that are whole runs of every model."""
    return math.lcm(*(fixed_size(model) or 1 for model in models))


def _objective(student: ir.Model, teacher: ir.Model, data: Dataset, goal: Goal) -> Objective:
    if goal.labels and data.labels is None:
        raise GraphoptError(
            "--labels needs labels: an array `labels` in the data, or labels.csv in its folder"
        )
    return make_objective(student, teacher, goal)


def _augmentation(student: ir.Model, goal: Goal, plan: Plan) -> tuple[str, ...]:
    chosen = suitable(student) if plan.augment is None else plan.augment
    if chosen and Images.of(student) is None:
        raise GraphoptError(
            "--augment is for a model with one input of images: four dimensions, 1 or 3 channels"
        )
    if "mix" in chosen and goal.hard:
        raise GraphoptError("mixed images have no labels: leave out `mix`, or the labels")
    return chosen


def _batch(wanted: int, samples: int, multiple: int, ranks: Ranks) -> int:
    """Samples of a step: as many as wanted, or as there are, but whole runs of both models in every process."""
    whole = multiple * ranks.size
    size = max(min(wanted, samples) // whole, 1) * whole
    if size > samples:
        raise GraphoptError(f"{samples} samples are too few for {ranks.size} processes")
    return size


def _statistics(student: ir.Model, samples: int, plan: Plan) -> bool:
    """Whether batch normalisations use the statistics of batches, which a run has to hold enough samples for."""
    return not plan.freeze_statistics and (fixed_size(student) or samples) >= FEWEST_FOR_STATISTICS


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """The same sums in the same order, where the device can."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

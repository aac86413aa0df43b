"""Learning step after step: rounds that are judged, the best of which is kept, and checkpoints to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from graphopt.errors import GraphoptError
from graphopt.training.distillation.batches import Batch
from graphopt.training.distillation.checkpoints import Checkpoint
from graphopt.training.distillation.ranks import Ranks
from graphopt.training.distillation.recipe import Plan
from graphopt.training.distillation.schedule import Budget, rate
from graphopt.training.distillation.stages import Stage, stage_at
from graphopt.training.distillation.student import Student
from graphopt.training.executor.operator import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Round:
    """After so many steps and seconds: the mean loss since the last round, that on held-out samples, and the share of them on which
    student and teacher agree, None where they give no scores."""

    step: int
    seconds: float
    loss: float
    held_out: float
    agreement: float | None


@dataclass
class Progress:
    """How far learning has come. `best` is the state of the round with the smallest held-out loss."""

    step: int = 0
    seconds: float = 0.0
    rounds: list[Round] = field(default_factory=list)
    best: State = field(default_factory=dict)

    @property
    def winner(self) -> int:
        """The number of the best round."""
        return min(range(len(self.rounds)), key=lambda number: self.rounds[number].held_out)

    @property
    def stale(self) -> int:
        """Rounds since the best one."""
        return len(self.rounds) - 1 - self.winner


@dataclass(frozen=True)
class Course:
    """What stays the same while a student learns: the last of the stages also judges; `steps` is the length of an epoch, `every` that
    of a round, `size` the number of samples that one run of the student takes, None if any."""

    stages: Sequence[Stage]
    plan: Plan
    budget: Budget
    steps: int
    every: int
    size: int | None
    ranks: Ranks
    checkpoint: Checkpoint | None
    tell: Callable[[str], None]


class Learner:
    """A student on its course."""

    def __init__(self, student: Student, course: Course, held_out: Sequence[Batch]) -> None:
        self._student, self._course, self._held_out = student, course, held_out
        self._weights = list(student.parameters())
        self._starts = [weight.detach().clone() for weight in self._weights] if course.plan.stay else []
        self._optimizer = torch.optim.AdamW(_groups(self._weights, course.plan), lr=course.plan.rate)
        self.progress = Progress()

    def resume(self) -> None:
        """Goes on from the checkpoint, or begins by judging what there is."""
        checkpoint, ranks = self._course.checkpoint, self._course.ranks
        found = ranks.agree(checkpoint.load() if checkpoint is not None and ranks.first else None)
        if found is None:
            self._judge([])
            return
        self._student.load(found["state"])
        self._optimizer.load_state_dict(found["optimizer"])
        rounds = [Round(**each) for each in found["rounds"]]
        self.progress = Progress(found["step"], found["seconds"], rounds, found["best"])

    def learn(self, batches: Iterator[Batch]) -> None:
        """Until the budget is used up or patience is; the student is then in its best state."""
        progress, losses = self.progress, []
        before, began = progress.seconds, time.monotonic()
        while not self._finished():
            losses.append(self._step(next(batches), self._used()))
            progress.step += 1
            progress.seconds = before + time.monotonic() - began
            self._tell(losses[-1])
            if progress.step % self._course.every == 0 or self._used() >= 1:
                self._judge(losses)
                self._save()
                losses = []
        self._student.load(progress.best)

    def _used(self) -> float:
        progress = self.progress
        return float(self._course.ranks.agree(self._course.budget.used(progress.step, progress.seconds)))

    def _finished(self) -> bool:
        patience = self._course.plan.patience
        return self._used() >= 1 or (patience is not None and self.progress.stale >= patience)

    def _step(self, batch: Batch, used: float) -> float:
        self._student.train()
        self._optimizer.zero_grad()
        stage = stage_at(self._course.stages, used)
        loss = sum(self._backward(part, stage, len(batch)) for part in batch.parts(self._course.size))
        self._course.ranks.average(
            [loss, *(weight.grad for weight in self._weights if weight.grad is not None)]
        )
        found = self._require_finite(float(loss))
        speed = rate(stage.used(used), self._course.plan.rate)
        for group in self._optimizer.param_groups:
            group["lr"] = speed
        self._optimizer.step()
        with torch.no_grad():
            for weight, start in zip(self._weights, self._starts, strict=False):
                if weight.grad is not None:
                    weight.lerp_(start, min(speed * self._course.plan.stay, 1.0))
        self._student.constrain()
        return found

    def _backward(self, batch: Batch, stage: Stage, samples: int) -> Tensor:
        """The share in the loss of a part of a batch, of which gradients are added up."""
        loss = self._compare(batch, stage)[0] * (len(batch) / samples)
        loss.backward()
        return loss.detach()

    def _compare(self, batch: Batch, stage: Stage) -> tuple[Tensor, float | None]:
        """The loss of a batch, and the share of it on which student and teacher agree."""
        student, objective = self._student, stage.objective
        feeds, targets = student.tensors(batch.feeds), student.tensors(batch.targets)
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(student.device)
        if stage.given is not None:
            with torch.no_grad():
                feeds |= student(feeds, [stage.given])
        found = student(feeds, objective.student_values)
        with torch.no_grad():
            agreement = objective.agreement(found, targets)
        return objective.loss(found, targets, feeds, labels), agreement

    def _judge(self, losses: Sequence[float]) -> None:
        """Ends a round."""
        progress = self.progress
        self._course.ranks.average(self._student.statistics())
        self._student.eval()
        with torch.no_grad():
            found = [
                (len(part), *self._compare(part, self._course.stages[-1]))
                for batch in self._held_out
                for part in batch.parts(self._course.size)
            ]
        total = sum(count for count, _, _ in found)
        held_out = sum(count * float(loss) for count, loss, _ in found) / total
        shares = [count * share / total for count, _, share in found if share is not None]
        mean = sum(losses) / len(losses) if losses else held_out
        self._require_finite(held_out)
        progress.rounds.append(
            Round(progress.step, progress.seconds, mean, held_out, sum(shares) if shares else None)
        )
        if progress.stale == 0:
            progress.best = {name: tensor.detach().clone() for name, tensor in self._student.state().items()}

    def _save(self) -> None:
        checkpoint, progress = self._course.checkpoint, self.progress
        if checkpoint is None or not self._course.ranks.first:
            return
        content: dict[str, Any] = {
            "step": progress.step,
            "seconds": progress.seconds,
            "rounds": [asdict(each) for each in progress.rounds],
            "state": {name: tensor.detach() for name, tensor in self._student.state().items()},
            "best": dict(progress.best),
            "optimizer": self._optimizer.state_dict(),
        }
        checkpoint.save(content)

    def _tell(self, loss: float) -> None:
        progress, course = self.progress, self._course
        last = progress.rounds[-1]
        agreement = "" if last.agreement is None else f", agreement {100 * last.agreement:.1f} %"
        left = course.budget.left(progress.step, progress.seconds)
        course.tell(
            f"learn: epoch {progress.step // course.steps + 1}, step {progress.step}: loss {loss:.4g}, "
            f"held-out {last.held_out:.4g}{agreement}, {left:.0f} s left"
        )

    def _require_finite(self, loss: float) -> float:
        if math.isfinite(loss):
            return loss
        checkpoint, step = self._course.checkpoint, self.progress.step
        kept = checkpoint is not None and checkpoint.path.exists()
        where = (
            f"; the last good state is kept in {checkpoint.path}" if checkpoint is not None and kept else ""
        )
        raise GraphoptError(
            f"the loss is {loss} after {step} step(s): a lower --rate may help, if data and models are right{where}"
        )


def _groups(weights: Sequence[Tensor], plan: Plan) -> list[dict[str, Any]]:
    """Matrices and filters decay; biases, scales and codebooks do not."""
    matrices = [weight for weight in weights if weight.ndim > 1]
    vectors = [weight for weight in weights if weight.ndim <= 1]
    groups = [(matrices, plan.decay), (vectors, 0.0)]
    return [{"params": each, "weight_decay": decay} for each, decay in groups if each]

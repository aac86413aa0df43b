"""What is compared between a student and its teacher, and the loss that is the sum of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch.nn import functional

from graphopt.errors import GraphoptError
from graphopt.model.attributes import attribute
from graphopt.training.distillation.features import match_features
from graphopt.training.distillation.losses import LOSSES
from graphopt.training.distillation.recipe import AUTO, Goal
from graphopt.training.executor.operator import Tensor

SCORED = frozenset({"classes", "tokens"})
"""Kinds of values whose largest element is the answer."""

PADDING = "attention_mask"
"""The input that says, by convention of transformers, at which positions there is anything: [samples, positions]."""

AS_IT_WAS = frozenset(
    {"Add", "Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze"}
)
"""Operators through which scores may pass on their way to an output."""

SCORERS = frozenset({"Conv", "Gemm", "GlobalAveragePool", "MatMul"})
"""Operators that make scores."""

NORMALISERS = frozenset({"LogSoftmax", "Softmax"})


@dataclass(frozen=True)
class Term:
    """A value of the student, the teacher's that it should be like, and how they are compared."""

    student: str
    teacher: str
    kind: str
    weight: float = 1.0


@dataclass(frozen=True)
class Objective:
    """The loss of a batch: `terms` next to the labels, of which `hard` is the share and `scores` the student's value."""

    terms: Sequence[Term]
    temperature: float
    hard: float
    scores: str

    @property
    def student_values(self) -> list[str]:
        """Which the student has to compute."""
        return list(dict.fromkeys([self.scores, *(term.student for term in self.terms)]))

    @property
    def teacher_values(self) -> list[str]:
        """Which the teacher has to compute."""
        return list(dict.fromkeys(term.teacher for term in self.terms))

    def loss(
        self,
        found: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        feeds: Mapping[str, Tensor],
        labels: Tensor | None,
    ) -> Tensor:
        """Of values by name. Raises GraphoptError where shapes do not fit."""
        total = torch.zeros((), device=found[self.scores].device)
        for term in self.terms:
            student, teacher = found[term.student], targets[term.teacher]
            _require_alike(term, student, teacher)
            each = LOSSES[term.kind](student, teacher, self.temperature)
            total = total + term.weight * _mean(each, feeds)
        if self.hard and labels is not None:
            scores = found[self.scores]
            _require_classes(scores, labels)
            total = total + self.hard * functional.cross_entropy(scores, labels)
        return total

    def agreement(self, found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> float | None:
        """The share of largest scores of the first value in the same place; None where it has no scores."""
        if not self.terms or self.terms[0].kind not in SCORED:
            return None
        first = self.terms[0]
        same = found[first.student].argmax(-1) == targets[first.teacher].argmax(-1)
        return float(same.double().mean())


def make_objective(student: ir.Model, teacher: ir.Model, goal: Goal) -> Objective:
    """What is compared of two models in normal form, whose outputs have the same names; those that are no floats are left out.

    Raises GraphoptError for features that there are not.
    """
    wanted = {value.name: value for value in teacher.graph.outputs}
    pairs = [(each, wanted[each.name]) for each in student.graph.outputs if _is_float(each)]
    if not pairs:
        raise GraphoptError("the student has no output of floats, so there is nothing to learn")
    soft = 1 - goal.hard
    terms = []
    for number, (mine, other) in enumerate(pairs):
        kind = kind_of(mine) if number or goal.kind == AUTO else goal.kind
        values = (_scores(mine), _scores(other)) if kind in SCORED else (mine, other)
        terms.append(Term(values[0].name or "", values[1].name or "", kind, soft))
    terms += [
        Term(mine, other, "feature", goal.feature_weight)
        for mine, other in match_features(student, teacher, goal.features).items()
    ]
    _require_labelled(goal, terms[0])
    scores = terms[0].student
    return Objective([term for term in terms if term.weight], goal.temperature, goal.hard, scores)


def kind_of(output: ir.Value) -> str:
    """What an output says, by what makes it and by its shape."""
    maker = _maker(output)
    rank = None if output.shape is None else len(output.shape)
    if rank is None or rank < 2 or output.shape is None or output.shape[-1] == 1:
        return "regression"
    if maker in NORMALISERS or maker in SCORERS:
        return {2: "classes", 3: "tokens"}.get(rank, "regression")
    return "embedding" if rank == 2 else "regression"


def _maker(value: ir.Value) -> str:
    """The operator behind a value, past those that only carry it."""
    node = value.producer()
    while node is not None and node.op_type in AS_IT_WAS:
        sources = [each.producer() for each in node.inputs if each is not None]
        node = next((each for each in sources if each is not None), None)
    return "" if node is None else node.op_type


def _scores(output: ir.Value) -> ir.Value:
    """What a Softmax over the last axis makes probabilities of, or else the output itself."""
    node = output.producer()
    if node is None or node.op_type not in NORMALISERS or node.inputs[0] is None:
        return output
    rank = None if output.shape is None else len(output.shape)
    axis = attribute(node, "axis")
    return node.inputs[0] if rank == 2 or axis in (-1, None, (rank or 0) - 1) else output


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _mean(each: Tensor, feeds: Mapping[str, Tensor]) -> Tensor:
    """Over samples, and over positions that are no padding."""
    mask = feeds.get(PADDING)
    if mask is None or mask.shape != each.shape:
        return each.mean()
    there = mask.to(each.dtype)
    return (each * there).sum() / there.sum().clamp_min(1)


def _require_alike(term: Term, student: Tensor, teacher: Tensor) -> None:
    shapes = list(student.shape), list(teacher.shape)
    if term.kind == "feature":
        fits = (len(shapes[0]) > 2 and shapes[0][2:] == shapes[1][2:]) or shapes[0] == shapes[1]
    else:
        fits = shapes[0] == shapes[1]
    if not fits:
        raise GraphoptError(
            f"the student's {term.student!r} has shape {shapes[0]}, the teacher's {term.teacher!r} has shape {shapes[1]}: "
            "they cannot be compared"
        )


def _require_labelled(goal: Goal, first: Term) -> None:
    if goal.labels and first.kind != "classes":
        raise GraphoptError(f"labels are of classes, the first output is taken for {first.kind}")


def _require_classes(scores: Tensor, labels: Tensor) -> None:
    if int(labels.min()) < 0 or int(labels.max()) >= scores.shape[-1]:
        raise GraphoptError(
            f"labels lie within {int(labels.min())} .. {int(labels.max())}, the student has {scores.shape[-1]} classes"
        )

"""How far a student's values are from the teacher's: one number for each sample, or each position of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Tensor

TINY = 1e-12
"""What is divided by at least."""

Loss = Callable[[Tensor, Tensor, float], Tensor]
"""Of the student's value, the teacher's and the temperature; samples lie along the first axis of all."""


def soft_labels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The divergence of Kullback and Leibler of the classes along the last axis, both softened by the temperature.

    It counts with the square of the temperature, so that gradients keep their size (Hinton et al. 2015).
    """
    wanted = torch.log_softmax(teacher / temperature, -1)
    found = torch.log_softmax(student / temperature, -1)
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(-1)


def direction(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """One less the cosine of each sample."""
    return 1 - functional.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1)


def distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The mean square of the difference of each sample, relative to that of the teacher over the batch."""
    power = teacher.square().mean().clamp_min(TINY)
    return (student - teacher).square().reshape(len(student), -1).mean(1) / power


def attention(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The distance of where there is much and where little, whatever the numbers of channels [n, channels, ...]: squares summed
    over the channels and divided by their norm (Zagoruyko and Komodakis 2017)."""
    return distance(_where(student), _where(teacher), temperature)


def _where(value: Tensor) -> Tensor:
    return functional.normalize(value.square().mean(1).flatten(1), dim=1)


def feature(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The distance where both have the same shape, else that of their attention."""
    compare = distance if student.shape == teacher.shape else attention
    return compare(student, teacher, temperature)


LOSSES: Mapping[str, Loss] = {
    "classes": soft_labels,
    "embedding": direction,
    "feature": feature,
    "regression": distance,
    "tokens": soft_labels,
}
"""What is compared -> how."""

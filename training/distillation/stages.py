"""Blocks of a student that learn one after the other, before the whole does: steps are quicker so, and take less memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.errors import GraphoptError
from graphopt.training.distillation.features import shared_values
from graphopt.training.distillation.objective import Objective, Term


@dataclass(frozen=True)
class Stage:
    """What is learned in the time from share `begin` to `end`; the student's value `given`, and all before it, is taken as it is."""

    objective: Objective
    given: str | None
    begin: float
    end: float

    def used(self, share: float) -> float:
        """How much of this stage has passed when this share of the whole time has."""
        return (share - self.begin) / (self.end - self.begin)


def make_stages(student: ir.Model, teacher: ir.Model, whole: Objective, share: float) -> list[Stage]:
    """With a share of the time for blocks a stage for each, from one value that both models have to the next; then one for the whole.

    Raises GraphoptError where the models have no such values.
    """
    ends = shared_values(student, teacher) if share else []
    if share and not ends:
        raise GraphoptError(
            "no value inside the student has the name and the places of one of the teacher, so there are no blocks"
        )
    stages = [
        Stage(
            Objective([Term(end, end, "feature")], whole.temperature, 0.0, end),
            ends[number - 1] if number else None,
            share * number / len(ends),
            share * (number + 1) / len(ends),
        )
        for number, end in enumerate(ends)
    ]
    return [*stages, Stage(whole, None, share, 1.0)]


def stage_at(stages: Sequence[Stage], share: float) -> Stage:
    """The one of a moment."""
    return next((stage for stage in stages if share < stage.end), stages[-1])

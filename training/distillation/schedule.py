"""How much of the time is used up, and how boldly to learn then."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.training.distillation.recipe import Plan

WARM_UP, FIRST = 0.05, 0.1
"""Share of the time in which the learning rate rises, and the share of it to begin with."""

FEWEST_STEPS, MOST_STEPS = 50, 500
"""Of a round, which is an epoch where that is neither shorter nor longer."""


@dataclass(frozen=True)
class Budget:
    """`steps` of learning or, where that is None, `seconds`."""

    steps: int | None
    seconds: float

    @classmethod
    def of(cls, plan: Plan, steps: int) -> Budget:
        """That of a plan, for epochs of so many steps."""
        if plan.epochs is not None:
            return cls(plan.epochs * steps, math.inf)
        assert plan.minutes is not None
        return cls(None, 60 * plan.minutes)

    def used(self, step: int, seconds: float) -> float:
        """The share that is used up after this many steps and seconds, 1 or more at the end."""
        return seconds / self.seconds if self.steps is None else step / self.steps

    def left(self, step: int, seconds: float) -> float:
        """The seconds that are left, as far as can be told after a few of them."""
        if self.steps is None:
            return max(self.seconds - seconds, 0)
        return seconds / step * (self.steps - step) if step else math.inf


def rate(used: float, highest: float) -> float:
    """The learning rate: up in a line, then down along half a cosine (Loshchilov and Hutter 2017)."""
    if used < WARM_UP:
        return highest * (FIRST + (1 - FIRST) * used / WARM_UP)
    passed = min((used - WARM_UP) / (1 - WARM_UP), 1)
    return highest * 0.5 * (1 + math.cos(math.pi * passed))


def round_steps(steps: int) -> int:
    """Steps between two judgements, for epochs of so many steps."""
    return min(max(steps, FEWEST_STEPS), MOST_STEPS)

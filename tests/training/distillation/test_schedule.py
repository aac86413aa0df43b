"""The course of the learning rate, and what is left of a budget."""

import itertools
import math

import pytest

from graphopt.training.distillation import Plan
from graphopt.training.distillation.schedule import Budget, rate, round_steps


def test_the_rate_rises_and_falls() -> None:
    course = [rate(step / 100, 2.0) for step in range(101)]
    assert course[0] == pytest.approx(0.2)
    assert max(course) == course[5] == 2.0
    assert course[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in itertools.pairwise(course[5:]))
    assert rate(1.7, 2.0) == pytest.approx(0.0)


def test_budgets() -> None:
    steps = Budget.of(Plan(epochs=3), 10)
    assert [steps.used(step, 1e9) for step in (0, 15, 30)] == [0, 0.5, 1]
    assert steps.left(10, 5.0) == 10.0
    assert steps.left(0, 0.0) == math.inf
    time = Budget.of(Plan(minutes=2.0), 10)
    assert [time.used(10**9, seconds) for seconds in (0, 60, 120)] == [0, 0.5, 1]
    assert [time.left(1, seconds) for seconds in (30, 500)] == [90, 0]


def test_rounds_are_epochs_within_bounds() -> None:
    assert [round_steps(steps) for steps in (1, 100, 10_000)] == [50, 100, 500]

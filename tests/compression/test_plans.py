"""Plans: what they are called, what they are made of, and which goes further."""

import pytest

from graphopt.compression.plans import WAYS, Plan, Zeros

FULL = Plan(0.5, Zeros(0.5), "int8", 16, recovered=True)


def test_plans_tell_what_they_do() -> None:
    assert str(Plan()) == "as it was"
    assert str(FULL) == "50 % of multiply-adds, 50 % zeros, int8, 16 clusters, recovered"
    assert str(Plan(zeros=Zeros(0.3, "16x1"))) == "30 % zeros in 16x1"


def test_a_plan_is_made_of_those_before_it() -> None:
    found, plan = [], FULL
    while plan is not None:
        found.append(plan)
        plan = plan.before
    assert found == [
        FULL,
        Plan(0.5, Zeros(0.5), "int8", 16),
        Plan(0.5, Zeros(0.5), "int8"),
        Plan(0.5, Zeros(0.5)),
        Plan(0.5),
        Plan(),
    ]


@pytest.mark.parametrize(
    ("further", "other"),
    [
        (Plan(), Plan()),
        (Plan(0.5), Plan()),
        (Plan(0.5), Plan(0.6)),
        (Plan(scheme="int8", clusters=16), Plan(scheme="int8")),
        (Plan(scheme="int8", clusters=16), Plan(clusters=16)),
        (Plan(clusters=16), Plan(clusters=32)),
        (Plan(zeros=Zeros(0.5, "16x1")), Plan(zeros=Zeros(0.3, "16x1"))),
        (Plan(zeros=Zeros(0.5), clusters=16), Plan(clusters=16)),
    ],
)
def test_more_goes_further(further: Plan, other: Plan) -> None:
    assert further.goes_as_far_as(other)
    assert other == further or not other.goes_as_far_as(further)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Plan(0.5), Plan(clusters=32)),
        (Plan(0.5, clusters=64), Plan(0.6, clusters=32)),
        (Plan(scheme="int8"), Plan(clusters=64)),
        (Plan(scheme="int8"), Plan(scheme="int4-weights")),
        (Plan(zeros=Zeros(0.5)), Plan(zeros=Zeros(0.3, "16x1"))),
    ],
)
def test_what_differs_cannot_be_compared(one: Plan, other: Plan) -> None:
    assert not one.goes_as_far_as(other)
    assert not other.goes_as_far_as(one)


@pytest.mark.parametrize("ways", WAYS.values(), ids=list(WAYS))
def test_what_goes_less_far_is_tried_first(ways: tuple[Plan, ...]) -> None:
    for number, way in enumerate(ways):
        assert not any(way.goes_as_far_as(later) for later in ways[number + 1 :])

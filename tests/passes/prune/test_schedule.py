"""How many channels of which group go."""

from itertools import pairwise

import numpy as np
import pytest

from graphopt.passes.prune.groups import Group, find_groups
from graphopt.passes.prune.schedule import LEAST, SCHEDULES, Candidate, across, counts, uniform
from tests.conftest import make_model
from tests.passes.prune.checking import between, random, ready

SCORES = np.array([5.0, 1, 7, 3, 8, 2, 6, 4])


def group(size: int) -> Group:
    """Of the columns of a product."""
    text = "agraph (float[2,3] x) => (float[2,4] y) { a = MatMul(x, w) y = MatMul(a, v) }"
    (found,) = find_groups(ready(make_model(text, w=random(3, size), v=random(size, 4)))).groups
    return Group(
        f"of {size}", *[getattr(found, name) for name in ("size", "classes", "slots", "makers", "readers")]
    )


@pytest.mark.parametrize(
    ("ratio", "round_to", "left"),
    [
        (0, 1, 8),
        (0.25, 1, 6),
        (0.5, 1, 4),
        (0.9, 1, 1),
        (1, 1, 1),
        (0.4, 4, 4),
        (0.9, 4, 4),
        (0.4, 16, 5),
        (0.4, 8, 8),
        (0, 3, 8),
    ],
)
def test_the_same_share_of_every_group(ratio: float, round_to: int, left: int) -> None:
    """Never none of it, and whole steps unless a group is smaller than one."""
    kept = uniform([Candidate(group(8), SCORES)], ratio, round_to)["of 8"]
    assert kept.sum() == left
    assert set(SCORES[kept]) == set(sorted(SCORES)[8 - left :])


def test_widths_are_rounded_where_channels_lie_on_several_places() -> None:
    """Three heads of four: one is four elements."""
    body = "b = DepthToSpace <blocksize = 2> (a)"
    (found,) = find_groups(between(body, w=random(32, 3, 3, 3), v=random(4, 8, 1, 1))).groups
    kept = uniform([Candidate(found, SCORES)], 0.6, 8)[found.name]
    assert kept.sum() % 2 == 0


def test_equal_channels_go_in_order() -> None:
    kept = uniform([Candidate(group(8), np.ones(8))], 0.5)["of 8"]
    assert kept.tolist() == [True] * 4 + [False] * 4


def test_groups_compete() -> None:
    worth = [
        Candidate(group(4), np.array([1.0, 2, 30, 40]), comparable=True),
        Candidate(group(8), 10 + SCORES, comparable=True),
    ]
    kept = across(worth, 0.5)
    assert {name: int(each.sum()) for name, each in kept.items()} == {"of 4": 2, "of 8": 4}


def test_channels_that_cost_more_go_first() -> None:
    """Half of 84: four that cost ten, and two that cost one."""
    cheap = Candidate(group(4), np.ones(4), comparable=True)
    dear = Candidate(group(8), np.full(8, 2.0), lambda width: 10.0 * width, True)
    kept = across([cheap, dear], 0.5)
    assert counts(kept) == {"of 4": (4, 2), "of 8": (8, 4)}


def test_what_is_not_comparable_is_relative_to_the_mean() -> None:
    small, large = Candidate(group(4), np.array([1.0, 2, 3, 4])), Candidate(group(8), 1000 * SCORES)
    kept = across([small, large], 0.5)
    assert all(each.any() and not each.all() for each in kept.values())


@pytest.mark.parametrize("scores", [np.zeros(8), SCORES])
def test_a_share_of_every_group_stays(scores: np.ndarray) -> None:
    kept = across([Candidate(group(8), scores), Candidate(group(20), np.full(20, 1e9), comparable=True)], 1.0)
    assert counts(kept) == {"of 8": (8, max(round(8 * LEAST), 1)), "of 20": (20, 2)}


def test_nothing_goes_of_nothing() -> None:
    assert across([], 0.5) == uniform([], 0.5) == {}
    assert across([Candidate(group(8), SCORES)], 0)["of 8"].all()


def by_vectors(width: int) -> float:
    """Vectors of four."""
    return float(-(-width // 4))


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8])
def test_widths_that_leave_vectors_half_empty_gain_nothing(ratio: float) -> None:
    kept = across([Candidate(group(16), np.arange(16.0), by_vectors)], ratio)["of 16"]
    assert kept.sum() % 4 == 0
    assert kept.sum() == 16 - 4 * int(4 * ratio)


def test_what_saves_more_goes_first() -> None:
    """Channels of the narrow group are worth less, and save nothing before two of them are gone."""
    linear, narrow = Candidate(group(8), np.full(8, 2.0)), Candidate(group(6), np.ones(6), by_vectors)
    kept = across([linear, narrow], 0.1)
    assert counts(kept) == {"of 8": (8, 7), "of 6": (6, 6)}


def test_a_narrower_width_that_costs_more_is_never_left() -> None:
    costs = [0.0, 3, 1, 4, 4, 9, 8, 7, 8]
    kept = {
        int(across([Candidate(group(8), SCORES, costs.__getitem__)], ratio)["of 8"].sum())
        for ratio in np.linspace(0, 1, 50)
    }
    assert kept == {8, 7, 4, 2}


def test_a_group_as_wide_as_the_rounding_stays_whole() -> None:
    """In both schedules; the twin, which is narrower, has no width that is round."""
    for schedule in (uniform, across):
        kept = schedule([Candidate(group(8), SCORES), Candidate(group(6), SCORES[:6])], 0.6, 8)
        assert counts(kept)["of 8"] == (8, 8)
        assert counts(kept)["of 6"][1] < 6


def test_more_goes_at_a_higher_ratio() -> None:
    """Blocks that save much are not passed over for others that are worth more, as they are where the rest of a share is filled."""
    large = Candidate(group(16), np.ones(16), lambda width: 1000.0 * -(-width // 8), True)
    little = Candidate(group(8), np.full(8, 50.0), comparable=True)
    for schedule, expected in ((SCHEDULES["global"], (8, 1)), (SCHEDULES["latency"], (8, 8))):
        assert counts(schedule([large, little], 0.1))["of 8"] == expected
    widths = [
        [left for _, left in counts(SCHEDULES["latency"]([large, little], ratio)).values()]
        for ratio in np.linspace(0, 1, 30)
    ]
    assert all(
        one >= other for before, after in pairwise(widths) for one, other in zip(before, after, strict=True)
    )
    assert widths[-1] == [8, 1]

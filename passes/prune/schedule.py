"""How many channels of which group go: the same share of each, or those of all groups that are worth least for what they cost.

Where widths are rounded, groups narrower than that are cut channel by channel, since no width of theirs is round; one that is exactly as wide
stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import gcd

import numpy as np
from numpy.typing import NDArray

from graphopt.passes.prune.groups import Group
from graphopt.passes.prune.removal import Kept

LEAST = 0.1
"""The share of a group that stays, at least, when groups compete."""

ROUNDING = 1e-9
"""Prices that differ by less are the same."""


@dataclass(frozen=True)
class Candidate:
    """A group, what its channels are worth, and what it costs with so many channels, such as multiply-adds or cycles.

    What channels of different groups are worth is compared as it is where that is `comparable`, otherwise relative to the mean.
    """

    group: Group
    scores: NDArray[np.float64]
    cost: Callable[[int], float] = float
    comparable: bool = False


def uniform(candidates: Sequence[Candidate], ratio: float, round_to: int = 1) -> Kept:
    """The same share of every group goes."""
    return {each.group.name: _best(each, _count(each.group, 1 - ratio, round_to)) for each in candidates}


def across(candidates: Sequence[Candidate], ratio: float, round_to: int = 1, in_order: bool = False) -> Kept:
    """Of all costs a share goes: blocks of channels that keep widths round compete by worth for what they save.

    Where one saves more than what is missing, smaller ones may still go; not `in_order`, by which more goes at a higher ratio for sure.
    """
    blocks = [
        (block.price, number, place, block)
        for number, each in enumerate(candidates)
        for place, block in enumerate(_blocks(each, round_to))
    ]
    budget = ratio * sum(each.cost(each.group.size) for each in candidates)
    left = [each.group.size for each in candidates]
    closed: set[int] = set()
    for _, number, _, block in sorted(blocks, key=lambda each: each[:3]):
        if block.saved > budget and in_order:
            break
        if block.saved > budget or number in closed:
            closed.add(number)
            continue
        budget -= block.saved
        left[number] -= block.size
    return {each.group.name: _best(each, count) for each, count in zip(candidates, left, strict=True)}


@dataclass(frozen=True)
class _Block:
    """Channels of a group that go together: how many, what they are worth, and what is saved without them."""

    size: int
    worth: float
    saved: float

    @property
    def price(self) -> float:
        """What is lost for what is saved."""
        return self.worth / self.saved if self.saved > 0 else float("inf")

    def __add__(self, other: _Block) -> _Block:
        return _Block(self.size + other.size, self.worth + other.worth, self.saved + other.saved)


def _blocks(candidate: Candidate, round_to: int) -> list[_Block]:
    """Those of a group, the first to go first, between widths that are round. No block has a higher price than those that go after it: one that
    saves little, since it leaves vectors half empty, goes with what comes after. The last ones save nothing, and are left out."""
    size = candidate.group.size
    worth = np.concatenate([[0.0], np.cumsum(np.sort(_relative(candidate)))])
    found: list[_Block] = []
    widths = _widths(candidate.group, round_to)
    for wide, narrow in pairwise(widths):
        lost = float(worth[size - narrow] - worth[size - wide])
        block = _Block(wide - narrow, lost, candidate.cost(wide) - candidate.cost(narrow))
        while found and found[-1].price > block.price * (1 + ROUNDING):
            block = found.pop() + block
        found.append(block)
    return [block for block in found if block.saved > 0]


def _widths(group: Group, round_to: int) -> list[int]:
    """From the whole group down to what has to stay, by way of multiples of the step; one by one where the group is narrower."""
    step = _step(group, round_to)
    step = step if group.size >= step else 1
    least = max(LEAST * group.size, 1)
    return [
        group.size,
        *(width for width in range((group.size - 1) // step * step, 0, -step) if width >= least),
    ]


SCHEDULES: Mapping[str, Callable[..., Kept]] = {
    "uniform": uniform,
    "global": across,
    "latency": partial(across, in_order=True),
}
"""By name; what a group costs is cycles for the last one, multiply-adds for others."""


def _relative(candidate: Candidate) -> NDArray[np.float64]:
    mean = 1.0 if candidate.comparable else float(candidate.scores.mean())
    return candidate.scores / (mean if mean > 0 else 1.0)


def _count(group: Group, share: float, round_to: int) -> int:
    """How many channels stay, so that axes have a multiple of `round_to` elements where they are long enough."""
    step = _step(group, round_to)
    if group.size < step:
        step = 1
    return min(max(round(group.size * share / step), 1) * step, group.size)


def _step(group: Group, round_to: int) -> int:
    """Channels that together have `round_to` elements, or a multiple."""
    longest = max(
        (int(np.bincount(place.data.units[place.data.units >= 0]).max()) for place in group.makers), default=1
    )
    return round_to // gcd(round_to, longest)


def _best(candidate: Candidate, count: int) -> NDArray[np.bool_]:
    kept = np.zeros(candidate.group.size, bool)
    kept[np.argsort(-candidate.scores, kind="stable")[:count]] = True
    return kept


def counts(kept: Kept) -> Mapping[str, tuple[int, int]]:
    """Channels before and after, by group."""
    return {name: (len(each), int(each.sum())) for name, each in kept.items()}

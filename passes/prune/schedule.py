"""How many channels of which group go: the same share of each, or those of all groups that are worth least for what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from graphopt.passes.prune.groups import Group
from graphopt.passes.prune.removal import Kept

LEAST = 0.1
"""The share of a group that stays, at least, when groups compete."""


@dataclass(frozen=True)
class Candidate:
    """A group, what its channels are worth, and what one of them costs, such as multiply-adds or milliseconds.

    What channels of different groups are worth is compared as it is where that is `comparable`, otherwise relative to the mean.
    """

    group: Group
    scores: NDArray[np.float64]
    cost: float = 1.0
    comparable: bool = False


def uniform(candidates: Sequence[Candidate], ratio: float, round_to: int = 1) -> Kept:
    """The same share of every group goes."""
    return {each.group.name: _best(each, _count(each.group, 1 - ratio, round_to)) for each in candidates}


def across(candidates: Sequence[Candidate], ratio: float, round_to: int = 1) -> Kept:
    """Of all costs a share goes: blocks of channels that keep widths round compete by worth for cost."""
    blocks = [block for number, each in enumerate(candidates) for block in _blocks(number, each, round_to)]
    budget = ratio * sum(each.cost * each.group.size for each in candidates)
    left = [each.group.size for each in candidates]
    for _, number, size in sorted(blocks):
        cost = size * candidates[number].cost
        if cost <= budget and left[number] - size >= max(LEAST * candidates[number].group.size, 1):
            budget -= cost
            left[number] -= size
    return {each.group.name: _best(each, count) for each, count in zip(candidates, left, strict=True)}


def _blocks(number: int, candidate: Candidate, round_to: int) -> list[tuple[float, int, int]]:
    """What blocks of the channels of a group are worth for what they cost, never less than those that go before; whose they are,
    and how many channels they have: the first one as many as make the width round."""
    step = _step(candidate.group, round_to)
    step = step if candidate.group.size > step else 1
    worth = np.sort(_relative(candidate))
    ends = list(range(candidate.group.size % step or step, candidate.group.size + 1, step))
    means = [float(part.mean()) for part in np.split(worth, ends[:-1])]
    sizes = np.diff([0, *ends]).tolist()
    return [
        (worst, number, size)
        for worst, size in zip(np.maximum.accumulate(means).tolist(), sizes, strict=True)
    ]


SCHEDULES = {"uniform": uniform, "global": across}


def _relative(candidate: Candidate) -> NDArray[np.float64]:
    mean = 1.0 if candidate.comparable else float(candidate.scores.mean())
    return candidate.scores / (mean if mean > 0 else 1.0) / max(candidate.cost, 1e-30)


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

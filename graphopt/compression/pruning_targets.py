"""What pruning may be asked to leave, and how much has to go for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.compression.latency import Latency
from graphopt.compression.pruner import Pruner
from graphopt.errors import GraphoptError, UnreachableError
from graphopt.model import Statistics, statistics
from graphopt.passes.prune.removal import Kept
from graphopt.passes.prune.schedule import counts

CHANNELS, LATENCY = "channels", "latency"

SEARCHED = 12
"""Halvings of the range of ratios in which the one that meets a target is."""

PROBES = 6
"""Models that are compiled and measured at most."""

NEAR = 0.03
"""A latency below what is wanted by less is as good as any: measurements differ by as much."""

MARGIN = 0.15
"""A probe is not nearer to those around it than this share of the range."""

MEASURES: dict[str, Callable[[Statistics], int]] = {
    "macs": lambda found: found.macs,
    "params": lambda found: found.params,
    "size": lambda found: found.bytes,
}
"""What can be counted of a model."""

TARGETS = (CHANNELS, *MEASURES, LATENCY)


@dataclass(frozen=True)
class Target:
    """`share` of a measure is to be left: one of `TARGETS`."""

    measure: str
    share: float

    def __post_init__(self) -> None:
        if self.measure not in TARGETS:
            raise GraphoptError(f"unknown target {self.measure!r}; choose one of {', '.join(TARGETS)}")
        if not 0 < self.share <= 1:
            raise GraphoptError(f"{self.share:g} of {self.measure} cannot be left: give more than 0, up to 1")


def meeting(
    pruner: Pruner, target: Target, before: Statistics, compare: Callable[[ir.Model], Latency]
) -> Kept:
    """The channels that stay at the smallest ratio whose model has no more than the target; `compare` measures latency.

    Raises UnreachableError if none has.
    """
    if target.measure == CHANNELS:
        return pruner.choose(1 - target.share)
    if target.measure == LATENCY:
        return _quick_enough(pruner, target.share, compare)
    measure = MEASURES[target.measure]
    wanted = target.share * measure(before)

    def left(ratio: float) -> int:
        return measure(statistics(pruner.make(pruner.choose(ratio), correct=False).model))

    too_little, enough = 0.0, 1.0
    if left(enough) > wanted:
        raise _unreachable(target, left(enough) / measure(before))
    for _ in range(SEARCHED):
        middle = (too_little + enough) / 2
        too_little, enough = (too_little, middle) if left(middle) <= wanted else (middle, enough)
    return pruner.choose(enough)


def _quick_enough(pruner: Pruner, wanted: float, compare: Callable[[ir.Model], Latency]) -> Kept:
    """Models of the same widths are measured once."""
    seen: dict[tuple[tuple[int, int], ...], float] = {}

    def share(ratio: float) -> float:
        kept = pruner.choose(ratio)
        widths = tuple(counts(kept).values())
        if widths not in seen:
            seen[widths] = compare(pruner.make(kept, correct=False).model).share
        return seen[widths]

    return pruner.choose(0.0 if wanted == 1 else search(share, wanted))


def search(share: Callable[[float], float], wanted: float) -> float:
    """The smallest ratio found whose share of latency is at most `wanted`, by few measurements: each where a line between the nearest two
    says it is, which is never at their ends.

    Raises UnreachableError if that of ratio 1 is more.
    """
    too_little, enough = (0.0, 1.0), (1.0, share(1.0))
    if enough[1] > wanted:
        raise _unreachable(Target(LATENCY, wanted), enough[1])
    for _ in range(PROBES - 1):
        if enough[1] >= wanted * (1 - NEAR):
            break
        place = (too_little[1] - wanted * (1 - NEAR / 2)) / (too_little[1] - enough[1])
        ratio = too_little[0] + min(max(place, MARGIN), 1 - MARGIN) * (enough[0] - too_little[0])
        found = ratio, share(ratio)
        too_little, enough = (too_little, found) if found[1] <= wanted else (found, enough)
    return enough[0]


def _unreachable(target: Target, least: float) -> UnreachableError:
    return UnreachableError(
        f"{target.share:g} of {target.measure} cannot be reached by removing channels: {least:.3f} would be left at least"
    )

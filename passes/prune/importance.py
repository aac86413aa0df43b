"""What a channel of a group is worth: functions from a group and what was observed to one number a channel."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphopt.model import edit
from graphopt.passes.prune.elimination import Reader, eliminate
from graphopt.passes.prune.groups import GONE, Group, Place, Slot
from graphopt.passes.prune.moments import Histograms, Moments

Scores = NDArray[np.float64]

Point = tuple[str, int]
"""A value by name, and an axis of it."""


@dataclass(frozen=True)
class Evidence:
    """What was observed of the values that groups are read from; slopes of losses in weights `[losses, *shape]`; the seed of chance."""

    moments: Mapping[Point, Moments] = field(default_factory=dict)
    histograms: Mapping[Point, Histograms] = field(default_factory=dict)
    slopes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    seed: int = 0


def point(place: Place) -> Point:
    """Where the channels of a group can be seen."""
    return place.data.value.name or "", place.data.axis


def l1(group: Group, evidence: Evidence) -> Scores:
    """The sum of the magnitudes of the weights that make a channel.

    Li et al., "Pruning Filters for Efficient ConvNets", 2017.
    """
    return _summed(group, group.makers, lambda rows: np.abs(rows).sum(axis=1))


def l2(group: Group, evidence: Evidence) -> Scores:
    """The square root of the squares of all weights that make or read a channel."""
    places = (*group.makers, *group.readers)
    return np.sqrt(_summed(group, places, lambda rows: np.square(rows).sum(axis=1)))


def median(group: Group, evidence: Evidence) -> Scores:
    """How far the weights that make a channel are from those of the others: what is near their median can be replaced.

    He et al., "Filter Pruning via Geometric Median", 2019.
    """

    def distances(rows: NDArray[np.float64]) -> Scores:
        squares = np.square(rows).sum(axis=1)
        apart = squares[:, None] + squares[None] - 2 * rows @ rows.T
        return np.asarray(np.sqrt(np.maximum(apart, 0)).sum(axis=1))

    return _summed(group, group.makers, distances)


def variance(group: Group, evidence: Evidence) -> Scores:
    """How much a channel changes, times the weights that read it."""
    found = np.zeros(group.size)
    for place in group.readers:
        seen = evidence.moments.get(point(place))
        if seen is not None:
            found += _by_unit(place.data, np.diag(seen.covariance)) * _by_unit(
                place.weight, np.square(_rows(place.weight)).sum(axis=1)
            )
    return found


def entropy(group: Group, evidence: Evidence) -> Scores:
    """How many bits the values of a channel have.

    Luo and Wu, "An Entropy-based Pruning Method for CNN Compression", 2017.
    """
    found = np.zeros(group.size)
    for place in group.readers:
        seen = evidence.histograms.get(point(place))
        if seen is not None:
            found += _by_unit(place.data, seen.entropies)
    return found


def taylor(group: Group, evidence: Evidence) -> Scores:
    """What the loss changes by when a channel goes, to first order: the sum of weights times slopes, squared.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019.
    """
    found = np.zeros(group.size)
    for slot in group.slots:
        slope, weights = evidence.slopes.get(slot.value.name or ""), edit.constant(slot.value)
        if slope is not None and weights is not None:
            products = np.moveaxis(slope * weights, slot.axis + 1, 1)
            for part in products.reshape(len(slope), len(slot.units), -1).sum(axis=2, dtype=np.float64):
                found += np.square(_by_unit(slot, part)) / len(slope)
    return found


def correlation(group: Group, evidence: Evidence) -> Scores:
    """The share of the results of what reads a channel that is lost with it when the others stand in for it as well as they can.

    Channels go one by one, each time the one that is missed least, as in Hassibi and Stork, "Second Order Derivatives for Network
    Pruning", 1993. Scores rise in that order.
    """
    readers = []
    for place in group.readers:
        seen = evidence.moments.get(point(place))
        if seen is not None and len(place.data.units) == len(place.weight.units):
            weights = _rows(place.weight).T
            readers.append(Reader(seen.covariance, seen.halves, weights, place.data.units))
    return eliminate(group.size, readers)


def chance(group: Group, evidence: Evidence) -> Scores:
    """Numbers that mean nothing, for comparison."""
    return np.random.default_rng([evidence.seed, zlib.crc32(group.name.encode())]).random(group.size)


Importance = Callable[[Group, Evidence], Scores]

IMPORTANCE: dict[str, Importance] = {
    "correlation": correlation,
    "entropy": entropy,
    "l1": l1,
    "l2": l2,
    "median": median,
    "random": chance,
    "taylor": taylor,
    "variance": variance,
}

COMPARABLE = frozenset({"correlation", "taylor", "variance"})
"""Those that say the same of channels of different groups."""

OBSERVES: dict[str, type[Moments | Histograms]] = {
    "correlation": Moments,
    "entropy": Histograms,
    "variance": Moments,
}
"""What has to be observed for which."""


def _summed(
    group: Group, places: Sequence[Place], measure: Callable[[NDArray[np.float64]], Scores]
) -> Scores:
    """Over places, the sum of what is measured of the weights of each channel; a weight that is read several times counts once."""
    slots = {(place.weight.value, place.weight.axis): place.weight for place in places}
    found = np.zeros(group.size)
    for slot in slots.values():
        found += _by_unit(slot, measure(_rows(slot)))
    return found


def _rows(slot: Slot) -> NDArray[np.float64]:
    """A constant as one row for each place along the axis of the slot."""
    array = edit.constant(slot.value)
    assert array is not None
    return np.moveaxis(array, slot.axis, 0).reshape(len(slot.units), -1).astype(np.float64)


def _by_unit(slot: Slot, numbers: Scores) -> Scores:
    """The sums over the places of each channel."""
    inside = slot.units != GONE
    size = int(slot.units.max()) + 1
    return np.bincount(slot.units[inside], numbers[inside], minlength=size).astype(np.float64)

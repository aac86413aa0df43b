"""Neurons that are nearly equal, or multiples of one another, become one: what reads the others reads it with the sum of their weights.

Srinivas and Babu, "Data-free Parameter Pruning for Deep Neural Networks", 2015; multiples are told by what is observed on data.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.model import edit
from graphopt.passes.prune.groups import GONE, Group, Place, Slot, Structure
from graphopt.passes.prune.labels import line

HOMOGENEOUS = frozenset(
    {
        "Add", "AveragePool", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu",
        "MatMul", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that make a positive multiple of what was multiplied by it, where their constants are multiplied too."""


@dataclass
class Products:
    """Sums over all positions of the products of channels that lie at `places` `[channels, places of each]` of an axis of a value.

    `sums` is `[channels, channels]`.
    """

    axis: int
    places: NDArray[np.int64]
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, array: NDArray[np.generic]) -> None:
        """Another batch."""
        rows = np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis]).astype(np.float64)
        channels = np.moveaxis(rows[:, self.places], 1, 0).reshape(len(self.places), -1)
        self.join(Products(self.axis, self.places, channels @ channels.T))

    def join(self, other: Products) -> None:
        """All that `other` has seen."""
        if other.sums.size:
            self.sums = self.sums + other.sums if self.sums.size else other.sums


@dataclass(frozen=True)
class Shared:
    """For each channel of a group the one that stands for it, itself if it stays; `factors` of what stands for it, by reader."""

    leaders: NDArray[np.int64]
    factors: Sequence[NDArray[np.float64]]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which channels stay."""
        return np.asarray(self.leaders == np.arange(len(self.leaders)))


def why_not(structure: Structure, group: Group) -> str | None:
    """Why the channels of a group cannot stand for one another; None if they can: nothing but float weights sums over them."""
    if group.inexact is not None:
        return group.inexact
    weights = [place.weight.value for place in group.readers]
    if not weights or len(set(weights)) < len(weights):
        return "nothing reads it, or two nodes by the same weights"
    for value in weights:
        tensor = edit.tensor(value)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(value.uses()) > 1:
            return f"{value.name!r} holds no floats, or is read twice"
    for slot in (*(place.data for place in group.readers), *(place.weight for place in group.readers)):
        if _places(slot, group.size) is None:
            return f"its channels have different numbers of places in {slot.value.name!r}"
    ends = _ends(structure, group)
    return None if ends is None else f"{ends.op_type} {ends.name!r} needs every one of them"


def _ends(structure: Structure, group: Group) -> ir.Node | None:
    """A node that takes in channels without giving them on, and is no reader."""
    readers = {(place.node, place.data.value) for place in group.readers}
    for value in _carriers(structure, group):
        for node in value.consumers():
            given = {number for output in node.outputs for number in _classes(structure, output)}
            here = set(group.classes.tolist()) & _classes(structure, value)
            if (node, value) not in readers and not here <= given:
                return node
    return None


def _carriers(structure: Structure, group: Group) -> list[ir.Value]:
    """Values that nodes give which hold channels of a group."""
    mine = set(group.classes.tolist())
    return [
        value
        for value in structure.flow.values
        if edit.tensor(value) is None and mine & _classes(structure, value)
    ]


def _classes(structure: Structure, value: ir.Value) -> set[int]:
    found = (line(structure.classes[block]) for block in structure.flow.values.get(value, ()))
    return {number for each in found if each is not None for number in each[1].tolist()}


def _places(slot: Slot, size: int) -> NDArray[np.int64] | None:
    """Where each channel lies along an axis, `[channels, places]`; None where some lie at more places than others."""
    order = np.argsort(slot.units, kind="stable")
    order = order[slot.units[order] != GONE]
    counts = np.bincount(slot.units[order], minlength=size)
    return order.reshape(size, -1) if (counts == counts[0]).all() and counts[0] else None


def observers(group: Group) -> list[tuple[Place, Products]]:
    """What has to be seen to tell which channels of a group stand for one another, by reader."""
    found = []
    for place in group.readers:
        places = _places(place.data, group.size)
        assert places is not None
        found.append((place, Products(place.data.axis, places)))
    return found


def by_activations(seen: Sequence[Products], tolerance: float) -> Shared:
    """Channels that are multiples of others for all readers, but for `tolerance` times their root mean square."""
    size = len(seen[0].places)
    errors, factors = np.zeros((size, size)), []
    for each in seen:
        power = np.diag(each.sums)
        alive = np.where(power > 0, power, np.inf)
        factor = each.sums / alive[None]
        left = np.maximum(power[:, None] - factor * each.sums, 0) / alive[:, None]
        errors = np.maximum(errors, np.where((power > 0)[:, None] & (power > 0)[None], np.sqrt(left), np.inf))
        factors.append(factor)
    leaders = _led(errors, tolerance)
    return Shared(leaders, [factor[np.arange(size), leaders] for factor in factors])


def by_weights(structure: Structure, group: Group, tolerance: float) -> Shared:
    """Channels whose weights are those of others but for `tolerance` times their size; or positive multiples where that passes on.

    Only where every channel has one place everywhere: otherwise data has to tell what belongs together.
    """
    alone = Shared(np.arange(group.size), [np.ones(group.size)] * len(group.readers))
    made = _made(group)
    slots = [slot for each in (*group.makers, *group.readers) for slot in (each.weight, each.data)]
    if not made or any(
        found is None or found.shape[1] > 1 for found in (_places(slot, group.size) for slot in slots)
    ):
        return alone
    if _passes_multiples(structure, group):
        rows = np.concatenate(made, axis=1)
        power = np.square(rows).sum(axis=1)
        factors = np.maximum(rows @ rows.T, 0) / np.where(power > 0, power, np.inf)[None]
        errors = _distances([rows], factors)
    else:
        factors = np.ones((group.size, group.size))
        errors = _distances(made, factors)
    leaders = _led(errors, tolerance)
    return Shared(leaders, [factors[np.arange(group.size), leaders]] * len(group.readers))


def _made(group: Group) -> list[NDArray[np.float64]]:
    """A row for each channel of every constant that makes it what it is."""
    read = {(place.weight.value, place.weight.axis) for place in group.readers}
    found = []
    for slot in group.slots:
        array, places = edit.constant(slot.value), _places(slot, group.size)
        if (slot.value, slot.axis) in read:
            continue
        if array is None or places is None:
            return []
        rows = np.moveaxis(array, slot.axis, 0)[places]
        found.append(rows.reshape(group.size, -1).astype(np.float64))
    return found


def _passes_multiples(structure: Structure, group: Group) -> bool:
    """Whether a positive multiple of all that makes a channel gives that multiple of what its readers get."""
    read = {(place.weight.value, place.weight.axis) for place in group.readers}
    constants = {slot.value for slot in group.slots if (slot.value, slot.axis) not in read}
    [first, *others] = group.makers
    addends = constants - {first.weight.value}
    nodes = {node for value in _carriers(structure, group) for node in value.consumers()}
    return (
        not others
        and first.node.op_type in ("Conv", "Gemm", "MatMul")
        and all(_is_addend(value, first.node) for value in addends)
        and all(_is_homogeneous(node, addends) for node in nodes)
    )


def _is_addend(value: ir.Value, maker: ir.Node) -> bool:
    """Whether a constant is only ever added."""
    return all(use.node.op_type == "Add" or (use.node is maker and use.idx == 2) for use in value.uses())


def _is_homogeneous(node: ir.Node, addends: AbstractSet[ir.Value]) -> bool:
    if node.op_type != "Add":
        return node.op_type in HOMOGENEOUS
    return all(edit.tensor(value) is None or value in addends for value in node.inputs)


def _distances(parts: Sequence[NDArray[np.float64]], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far every channel is from its factor times every other one, relative to itself, in the part where that is most."""
    errors = np.zeros(factors.shape)
    for rows in parts:
        power, products = np.square(rows).sum(axis=1), rows @ rows.T
        left = power[:, None] - 2 * factors * products + np.square(factors) * power[None]
        apart = left > 1e-12 * (power[:, None] + np.square(factors) * power[None])
        relative = np.sqrt(np.maximum(left, 0) / np.where(power > 0, power, 1)[:, None])
        errors = np.maximum(errors, np.where(apart, np.where(power[:, None] > 0, relative, np.inf), 0))
    return errors


ROUNDING = 1e-6
"""Differences that computing them may make."""


def _led(errors: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
    """For each channel the nearest of those before it that stay, if that is near enough, or else itself."""
    leaders = np.arange(len(errors))
    for channel in range(1, len(errors)):
        before = np.flatnonzero(leaders[:channel] == np.arange(channel))
        nearest = before[np.argmin(errors[channel, before])]
        if errors[channel, nearest] <= max(tolerance, ROUNDING):
            leaders[channel] = nearest
    return leaders


def fold(group: Group, shared: Shared) -> None:
    """Let what reads channels that go read what stands for them, in the weights of the readers, in place."""
    gone = np.flatnonzero(~shared.kept)
    for place, factors in zip(group.readers, shared.factors, strict=True):
        value, places = place.weight.value, _places(place.weight, group.size)
        array = edit.constant(value)
        assert array is not None
        assert places is not None
        columns = np.moveaxis(array.astype(np.float64), place.weight.axis, 0)
        for channel in gone:
            columns[places[shared.leaders[channel]]] += factors[channel] * columns[places[channel]]
        folded = np.moveaxis(columns, 0, place.weight.axis).astype(array.dtype)
        value.const_value = ir.Tensor(np.ascontiguousarray(folded), name=value.name)

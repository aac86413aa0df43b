"""Dependency groups: channels that come and go together, wherever they are in a model.

Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, whose closure of layers is one of labels of elements here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.model import edit
from graphopt.passes.prune.flow import Flow, Link, label
from graphopt.passes.prune.labels import Block, line
from graphopt.passes.prune.rules.table import RULES

GONE = -1


@dataclass(frozen=True)
class Slot:
    """An axis that channels of a group lie on. `units[i]` is the channel of the group at place i, -1 for one that is none of it."""

    value: ir.Value
    axis: int
    units: NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where channels of a group are made or read: by `weight`, an axis of a constant of `node`, in `data`, an axis of a value."""

    node: ir.Node
    weight: Slot
    data: Slot


@dataclass(frozen=True)
class Group:
    """`size` channels that may go one by one, each from all `slots` of constants at once. `classes` are their labels' classes."""

    name: str
    size: int
    classes: NDArray[np.int64]
    slots: Sequence[Slot]
    makers: Sequence[Place]
    readers: Sequence[Place]
    inexact: str | None = None

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that make or read its channels, in order."""
        return list(dict.fromkeys(place.node.name or "" for place in (*self.makers, *self.readers)))


@dataclass(frozen=True)
class Whole:
    """A weight whose channels stay, and why."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Structure:
    """All of a model that can be pruned, and what cannot."""

    model: ir.Model
    flow: Flow
    classes: NDArray[np.int64]
    groups: Sequence[Group]
    whole: Sequence[Whole] = field(default_factory=tuple)


def find_groups(model: ir.Model, is_protected: Callable[[ir.Node], bool] = lambda node: False) -> Structure:
    """Follow the channels of a model whose shapes are inferred; what protected nodes read and give stays whole."""
    flow = Flow()
    flow.follow(model.graph, RULES)
    for node in model.graph:
        for value in (*node.inputs, *node.outputs) if is_protected(node) else ():
            flow.freeze(value, f"{label(node)} is protected")
    blocks = [block for each in flow.values.values() for block in each]
    classes, reasons = flow.labels.settle(blocks)
    slots = _slots(flow, classes)
    _keep_inseparable(slots, reasons)
    members = _by_signature(slots, reasons)
    order = {node: number for number, node in enumerate(model.graph)}
    groups = [_group(flow, classes, slots, signature, found) for signature, found in members.items()]
    groups = sorted((each for each in groups if each.makers), key=lambda each: order[each.makers[0].node])
    return Structure(model, flow, classes, _named(groups), _whole(flow, classes, reasons))


Key = tuple[ir.Value, int]


def _slots(flow: Flow, classes: NDArray[np.int64]) -> dict[Key, NDArray[np.int64]]:
    """The class at every place of every axis that has labels."""
    found: dict[Key, NDArray[np.int64]] = {}
    for value, blocks in flow.values.items():
        for block in blocks:
            placed = line(classes[block])
            if placed is not None:
                found[value, placed[0]] = placed[1]
    return found


def _keep_inseparable(slots: Mapping[Key, NDArray[np.int64]], reasons: dict[int, str]) -> None:
    """An axis of which all would go at once stays."""
    for (value, _), line_of in slots.items():
        if (line_of == line_of[0]).all():
            reasons.setdefault(
                int(line_of[0]), f"all {len(line_of)} elements of {value.name!r} hang together"
            )


def _by_signature(
    slots: Mapping[Key, NDArray[np.int64]], reasons: Mapping[int, str]
) -> dict[tuple[Key, ...], list[int]]:
    """Classes that lie on the same axes."""
    axes: dict[int, dict[Key, None]] = defaultdict(dict)
    for key, line_of in slots.items():
        for each in np.unique(line_of).tolist():
            if each not in reasons:
                axes[each][key] = None
    groups: dict[tuple[Key, ...], list[int]] = defaultdict(list)
    for each, keys in axes.items():
        groups[tuple(keys)].append(each)
    return {signature: found for signature, found in groups.items() if len(found) > 1}


def _group(
    flow: Flow,
    classes: NDArray[np.int64],
    slots: Mapping[Key, NDArray[np.int64]],
    signature: Sequence[Key],
    members: Sequence[int],
) -> Group:
    numbers = np.array(members, np.int64)
    order = np.argsort(_first_places(slots[signature[0]], numbers))
    numbers = numbers[order]
    on = {key: _units(slots[key], numbers) for key in signature}
    placed = {key: Slot(key[0], key[1], units) for key, units in on.items()}
    constants = [slot for slot in placed.values() if edit.tensor(slot.value) is not None]
    reasons = [text for block, text in flow.inexact if np.isin(classes[block], numbers).any()]
    return Group(
        "",
        len(numbers),
        numbers,
        constants,
        _places(flow.makers, placed),
        _places(flow.readers, placed),
        reasons[0] if reasons else None,
    )


def _first_places(line_of: NDArray[np.int64], numbers: NDArray[np.int64]) -> list[int]:
    return [int(np.flatnonzero(line_of == each)[0]) for each in numbers]


def _units(line_of: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place in `numbers` of every class along an axis."""
    order = np.argsort(numbers)
    found = np.searchsorted(numbers[order], line_of).clip(max=len(numbers) - 1)
    return np.where(numbers[order][found] == line_of, order[found], GONE)


def _places(links: Sequence[Link], slots: Mapping[Key, Slot]) -> list[Place]:
    found = []
    for link in links:
        weight = slots.get((link.weight, link.axis))
        data = slots.get((link.data, link.data_axis))
        if weight is not None and data is not None:
            found.append(Place(link.node, weight, data))
    return found


def _named(groups: Sequence[Group]) -> list[Group]:
    """Groups are called like the first node that makes their channels; several of one node are numbered."""
    seen: dict[str, int] = {}
    found = []
    for group in groups:
        base = group.makers[0].node.name or group.makers[0].node.op_type
        seen[base] = number = seen.get(base, 0) + 1
        name = base if number == 1 else f"{base}#{number}"
        found.append(Group(name, *[getattr(group, each) for each in FIELDS]))
    return found


FIELDS = ("size", "classes", "slots", "makers", "readers", "inexact")


def _whole(flow: Flow, classes: NDArray[np.int64], reasons: Mapping[int, str]) -> list[Whole]:
    """The weights that make channels none of which may go."""
    found: dict[str, Whole] = {}
    for link in flow.makers:
        labels: Block | None = next(
            (block for block in flow.values.get(link.weight, ()) if block.shape[link.axis] > 1), None
        )
        if labels is None:
            continue
        numbers = np.unique(classes[labels]).tolist()
        given = [reasons[each] for each in numbers if each in reasons]
        if len(given) == len(numbers):
            found.setdefault(label(link.node), Whole(label(link.node), labels.shape[link.axis], given[0]))
    return list(found.values())

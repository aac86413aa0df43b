"""What has to be seen of a model before it can be quantised, and what has been seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.calibration import Observer
from graphopt.model.attributes import attribute
from graphopt.passes.quantize.observers import Channels, Seen, joined
from graphopt.passes.quantize.plan import Plan

Place = tuple[str, int]
"""A value by name, and the axis along which its channels lie."""


@dataclass
class Observations:
    """By the names of values, so that they serve copies of the model: elements, and the channels that anchors read, by their axis."""

    elements: dict[str, Seen]
    channels: dict[Place, Channels]

    @classmethod
    def for_plan(cls, plan: Plan) -> Observations:
        """Empty ones, for everything that a plan makes integer."""
        elements = {value.name: Seen() for value in plan.values if value.name}
        read = {_channels_of(node) for node in plan.anchors}
        return cls(elements, {place: Channels(place[1]) for place in read if place is not None})

    @property
    def points(self) -> dict[str, list[Observer]]:
        """Who observes which value."""
        found: dict[str, list[Observer]] = {name: [each] for name, each in self.elements.items()}
        for (name, _), channels in self.channels.items():
            found[name].append(channels)
        return found

    def of_group(self, plan: Plan, leader: ir.Value) -> Seen:
        """All values that share a range, together."""
        members = [value.name for value in plan.values if plan.group(value) is leader]
        return joined([self.elements[name] for name in members if name in self.elements])

    def with_channels(self, channels: dict[Place, Channels]) -> Observations:
        """These, and channels of further values."""
        return Observations(self.elements, {**self.channels, **channels})

    def means(self, node: ir.Node) -> np.ndarray | None:
        """Of the channels of what an anchor reads; None where they were not observed."""
        place = _channels_of(node)
        found = None if place is None else self.channels.get(place)
        return found.means if found is not None and found.count else None


def _channels_of(node: ir.Node) -> Place | None:
    """Where an anchor reads input channels; None where that is not their last axis, nor the first one of an image."""
    value = node.inputs[0]
    if value is None or not value.name or attribute(node, "transA"):
        return None
    return value.name, 1 if node.op_type == "Conv" else -1

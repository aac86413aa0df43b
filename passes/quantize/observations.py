"""What has to be seen of a model before it can be quantised, and what has been seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.calibration import Observer
from graphopt.passes.quantize.observers import Channels, Seen, joined
from graphopt.passes.quantize.plan import Plan


@dataclass
class Observations:
    """By the names of values, so that they serve copies of the model: elements, and channels of what products read."""

    elements: dict[str, Seen]
    channels: dict[str, Channels]

    @classmethod
    def for_plan(cls, plan: Plan) -> Observations:
        """Empty ones, for everything that a plan makes integer."""
        elements = {value.name: Seen() for value in plan.values if value.name}
        axes = {
            node.inputs[0].name: _channel_axis(node) for node in plan.anchors if node.inputs[0] is not None
        }
        return cls(elements, {name: Channels(axis) for name, axis in axes.items() if name})

    @property
    def points(self) -> dict[str, list[Observer]]:
        """Who observes which value."""
        found: dict[str, list[Observer]] = {name: [each] for name, each in self.elements.items()}
        for name, channels in self.channels.items():
            found[name].append(channels)
        return found

    def of_group(self, plan: Plan, leader: ir.Value) -> Seen:
        """All values that share a range, together."""
        members = [value.name for value in plan.values if plan.group(value) is leader]
        return joined([self.elements[name] for name in members if name in self.elements])

    def with_channels(self, channels: dict[str, Channels]) -> Observations:
        """These, and channels of further values."""
        return Observations(self.elements, {**self.channels, **channels})

    def means(self, node: ir.Node) -> np.ndarray | None:
        """Of the channels of what an anchor reads; None where they were not observed."""
        value = node.inputs[0]
        found = None if value is None else self.channels.get(value.name or "")
        return (
            found.means if found is not None and found.count and found.axis == _channel_axis(node) else None
        )


def _channel_axis(node: ir.Node) -> int:
    """Of what an anchor reads."""
    return 1 if node.op_type == "Conv" else -1

"""Convolutions, plain, grouped, depthwise and transposed, and what works on the channels of images by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Flow, label
from graphopt.passes.prune.labels import Block, along
from graphopt.passes.prune.rules.rule import Removal, Rule, parameter

CHANNELS = 1


@dataclass(frozen=True)
class Form:
    """Where a convolution has its weights and their axes: those it reads, and those that it makes, by group."""

    weight: int
    read: int
    made: int
    biases: tuple[int, ...]

    def follow(self, flow: Flow, node: ir.Node) -> None:
        """Channels of the image are those of the weights; a group keeps as many as every other, a depthwise one goes whole."""
        image, weight, output = node.inputs[0], node.inputs[self.weight], node.outputs[0]
        assert image is not None
        assert weight is not None
        if not (_rank(weight) and _rank(output)):
            _keep(flow, node)
            return
        flow.axis(image, CHANNELS)
        flow.freeze(image, f"{label(node)} slides along it", [0, *range(2, _rank(image))])
        flow.freeze(weight, f"{label(node)} has a kernel of that size", range(2, _rank(weight)))
        made = self._manner(node)(flow, node, image, weight)
        for index in self.biases:
            bias = node.inputs[index] if len(node.inputs) > index else None
            if _is_vector(bias):
                flow.meet(flow.axis(bias, 0), made, f"{label(node)} makes what stays")
        flow.put(output, [] if made is None else [along(made, CHANNELS, _rank(output))])
        self._link(flow, node, image, weight)

    def _manner(self, node: ir.Node) -> Callable[[Flow, ir.Node, ir.Value, ir.Value], Block | None]:
        if _groups(node) == 1:
            return self._plain
        return self._depthwise if self._is_depthwise(node) else self._grouped

    def _is_depthwise(self, node: ir.Node) -> bool:
        return _groups(node) > 1 and _size(node.inputs[0], CHANNELS) == _groups(node)

    def _plain(self, flow: Flow, node: ir.Node, image: ir.Value, weight: ir.Value) -> Block | None:
        flow.meet(flow.axis(image, CHANNELS), flow.axis(weight, self.read), f"{label(node)} reads what stays")
        return flow.axis(weight, self.made)

    def _depthwise(self, flow: Flow, node: ir.Node, image: ir.Value, weight: ir.Value) -> Block | None:
        """A group is a channel and all that is made of it."""
        given, groups = flow.axis(image, CHANNELS), (_groups(node), 1)
        filters = flow.axis(weight, 0)
        flow.freeze(weight, f"{label(node)} makes several channels of each", [1])
        flow.meet(
            None if given is None else given.reshape(groups),
            None if filters is None else filters.reshape(_groups(node), -1),
            f"{label(node)} reads what stays",
        )
        if self.made == 0 or filters is None:
            return filters
        return np.repeat(filters, _size(weight, self.made) or 1)

    def _grouped(self, flow: Flow, node: ir.Node, image: ir.Value, weight: ir.Value) -> Block | None:
        """The same places of all groups go together."""
        groups = _groups(node)
        given, first = flow.axis(image, CHANNELS), flow.axis(weight, 0)
        rows = None if first is None else first.reshape(groups, -1)
        columns = flow.axis(weight, 1)
        if rows is not None:
            flow.labels.join(rows, rows[:1])
        by_group = None if given is None else given.reshape(groups, -1)
        flow.meet(by_group, rows if self.read == 0 else columns, f"{label(node)} reads what stays")
        if by_group is not None:
            flow.labels.join(by_group, by_group[:1])
        return first if self.made == 0 else None if columns is None else np.tile(columns, groups)

    def _link(self, flow: Flow, node: ir.Node, image: ir.Value, weight: ir.Value) -> None:
        constant = parameter(weight)
        if constant is None:
            return
        flow.makes(constant, self.made, node.outputs[0], CHANNELS)
        if _groups(node) == 1:
            flow.reads(constant, self.read, image, CHANNELS)

    def repair(self, removal: Removal, node: ir.Node) -> None:
        """Depthwise convolutions have fewer groups."""
        image = node.inputs[0]
        size = None if image is None or not self._is_depthwise(node) else removal.size(image, CHANNELS)
        if size is not None:
            node.attributes["group"] = ir.AttrInt64("group", size)


def _groups(node: ir.Node) -> int:
    return int(attribute(node, "group") or 1)


def _keep(flow: Flow, node: ir.Node) -> None:
    """Leaves whole what a node reads whose ranks are not known."""
    for value in node.inputs:
        flow.freeze(value, f"the rank of what {label(node)} reads or gives is not known")


def _rank(value: ir.Value) -> int:
    return 0 if value.shape is None else len(value.shape)


def _size(value: ir.Value | None, axis: int) -> int | None:
    if value is None or value.shape is None:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 1 and value.shape[0] != 1


def by_channel(flow: Flow, node: ir.Node) -> None:
    """Images stay; their channels pass, unless places in the whole image are given too, as by MaxPool."""
    image = node.inputs[0]
    assert image is not None
    if any(output.uses() for output in node.outputs[1:]):
        flow.freeze(image, f"{label(node)} gives places in it")
    flow.freeze(image, f"{label(node)} slides along it", range(2, _rank(image)))
    if not _rank(node.outputs[0]):
        _keep(flow, node)
        return
    for output in node.outputs:
        flow.put(output, [block for block in flow.blocks(image) if block.ndim == _rank(output)])


CONV = Form(weight=1, read=1, made=0, biases=(2,))
INTEGER = Form(weight=1, read=1, made=0, biases=(3,))
QUANTISED = Form(weight=3, read=1, made=0, biases=(4, 5, 8))
TRANSPOSED = Form(weight=1, read=0, made=1, biases=(2,))

RULES: dict[tuple[str, str], Rule] = {
    ("", "Conv"): Rule(CONV.follow, CONV.repair),
    ("", "ConvInteger"): Rule(INTEGER.follow, INTEGER.repair),
    ("", "QLinearConv"): Rule(QUANTISED.follow, QUANTISED.repair),
    ("", "ConvTranspose"): Rule(TRANSPOSED.follow, TRANSPOSED.repair),
    **{
        ("", name): Rule(by_channel)
        for name in ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
    },
    ("", "GridSample"): Rule(by_channel),
    ("", "RoiAlign"): Rule(by_channel),
    ("com.microsoft", "QLinearGlobalAveragePool"): Rule(by_channel),
    ("com.microsoft", "QLinearAveragePool"): Rule(by_channel),
}

"""Follows channels through a graph: every operator's rule joins the labels of what must be removed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt.model import edit
from graphopt.passes.prune.labels import Block, Labels, covered, tight

if TYPE_CHECKING:
    from graphopt.passes.prune.rules.rule import Rule

Dims = list[int | str | None]


@dataclass(frozen=True)
class Link:
    """Where a node makes channels, by an axis of a weight of its own, or reads them from `data` by one."""

    node: ir.Node
    weight: ir.Value
    axis: int
    data: ir.Value
    data_axis: int


class Flow:
    """The labels of all values so far, and which weights make and read channels."""

    def __init__(self) -> None:
        self.labels = Labels()
        self.makers: list[Link] = []
        self.readers: list[Link] = []
        self.inexact: list[tuple[Block, str]] = []
        self._blocks: dict[ir.Value, list[Block]] = {}
        self._seen: dict[ir.Value, set[ir.Node]] = {}
        self._node: ir.Node | None = None

    @property
    def values(self) -> Mapping[ir.Value, list[Block]]:
        """All values that have labels."""
        return self._blocks

    def blocks(self, value: ir.Value | None) -> list[Block]:
        """The labels of a value; a constant that is asked for the first time gets new ones along each of its axes."""
        if value is None:
            return []
        if value not in self._blocks and edit.tensor(value) is not None:
            shape = edit.tensor(value).shape.numpy()  # type: ignore[union-attr]
            wide = [axis for axis, size in enumerate(shape) if size > 1]
            self._blocks[value] = [self.labels.fresh(shape[axis], axis, len(shape)) for axis in wide]
        if self._node is not None:
            self._seen.setdefault(value, set()).add(self._node)
        return self._blocks.get(value, [])

    def axis(self, value: ir.Value | None, axis: int) -> Block | None:
        """The labels along one axis of a value, as a vector, which are all that it has along others too; None where it has none."""
        for number, block in enumerate(self.blocks(value)):
            place = axis % block.ndim
            if value is not None and block.shape[place] > 1:
                self._blocks[value][number] = self.labels.collapse(block, place)
                return self._blocks[value][number].reshape(-1)
        return None

    def put(self, value: ir.Value, blocks: Sequence[Block]) -> None:
        """Give a value its labels."""
        assert all(rank(value) in (None, block.ndim) for block in blocks), (
            f"blocks of {value.name!r} do not fit it"
        )
        self._blocks[value] = [tight(block) for block in blocks if covered(block)]

    def freeze(self, value: ir.Value | None, reason: str, axes: Sequence[int] | None = None) -> None:
        """Keep all of a value, or all along some of its axes."""
        for block in self.blocks(value):
            if axes is None or {axis % block.ndim for axis in axes} & set(covered(block)):
                self.labels.freeze([block], reason)

    def meet(self, left: Block | None, right: Block | None, reason: str) -> None:
        """Two vectors of labels go together; one without a partner stays."""
        if left is not None and right is not None:
            self.labels.join(left, right)
            return
        self.labels.freeze([each for each in (left, right) if each is not None], reason)

    def makes(self, weight: ir.Value, axis: int, data: ir.Value, data_axis: int) -> None:
        """The node that is being followed makes the channels of `data`."""
        self.makers.append(Link(self.node, weight, axis, data, data_axis))

    def reads(self, weight: ir.Value, axis: int, data: ir.Value, data_axis: int) -> None:
        """The node that is being followed sums over the channels of `data`."""
        self.readers.append(Link(self.node, weight, axis, data, data_axis))

    @property
    def node(self) -> ir.Node:
        """The one that is being followed."""
        assert self._node is not None
        return self._node

    def follow(self, graph: ir.Graph, rules: Mapping[tuple[str, str], Rule]) -> None:
        """Through all nodes, in order; what a graph gives out keeps its shape."""
        captured = _captured(graph)
        for node in graph:
            self._node = node
            rule = rules.get((node.domain, node.op_type))
            if rule is None:
                for value in node.inputs:
                    self.freeze(value, f"{label(node)} is not followed")
            else:
                rule.follow(self, node)
        self._node = None
        self._freeze_outputs(graph)
        for value in captured:
            self.freeze(value, "a graph inside of a node reads it")
        self._freeze_overlooked()

    def _freeze_outputs(self, graph: ir.Graph) -> None:
        blocks = [(block, value.name) for value in graph.outputs for block in self.blocks(value)]
        for block, name in blocks:
            self.labels.freeze([block], f"it is the output {name!r}", first=True)

    def _freeze_overlooked(self) -> None:
        """What a node reads whose rule did not ask for its labels stays as it is."""
        for value in list(self._blocks):
            for node in value.consumers():
                if node not in self._seen.get(value, ()):
                    self.freeze(value, f"{label(node)} needs it whole")


def label(node: ir.Node) -> str:
    """How a node is called in messages."""
    return f"{node.op_type} {node.name!r}" if node.name else f"an {node.op_type}"


def dims(value: ir.Value | None) -> Dims | None:
    """Sizes; names of free dimensions, None where there is not even a name."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def rank(value: ir.Value | None) -> int | None:
    """The number of axes, None if that is not known."""
    return None if value is None or value.shape is None else len(value.shape)


def _captured(graph: ir.Graph) -> list[ir.Value]:
    """Values of a graph that nodes in graphs inside of it read."""
    return [
        value
        for node in graph
        for inner in edit.subgraphs(node)
        for below in edit.nodes(inner)
        for value in below.inputs
        if value is not None and value.graph is graph
    ]

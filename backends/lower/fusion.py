"""Decides which elementwise operators are computed inside the kernel of the value they start from."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

Test = Callable[[ir.Node], bool]
Available = Callable[[ir.Value], bool]


def fusable_region(value: ir.Value, fusable: Test, available: Available) -> list[ir.Node]:
    """The longest run of nodes, in graph order, that follow from `value` and end in a single value.

    Every node passes `fusable`, reads only `value`, earlier nodes of the region, or values that are `available`, and no
    value but the last is used outside or is a graph output. Empty if there is no such run.
    """
    region = _grow(value, fusable, available)
    while region and not _ends_in_last(value, region):
        region.pop()
    return region


def _grow(value: ir.Value, fusable: Test, available: Available) -> list[ir.Node]:
    region: list[ir.Node] = []
    inside = {value}
    frontier = [value]
    while frontier:
        for node in _consumers(frontier.pop(0)):
            inputs = [i for i in node.inputs if i is not None]
            if node in region or not fusable(node) or not all(i in inside or available(i) for i in inputs):
                continue
            region.append(node)
            inside.update(node.outputs)
            frontier.extend(node.outputs)
    return _by_depth(region)


def _by_depth(region: list[ir.Node]) -> list[ir.Node]:
    """The nodes sorted so that each follows those of the region that it reads."""
    depth: dict[ir.Node, int] = {}

    def measure(node: ir.Node) -> int:
        if node not in depth:
            producers = {i.producer() for i in node.inputs if i is not None}
            depth[node] = 1 + max((measure(p) for p in producers if p in members), default=0)
        return depth[node]

    members = set(region)
    return sorted(region, key=measure)


def _ends_in_last(value: ir.Value, region: list[ir.Node]) -> bool:
    nodes = set(region)
    values = [value, *(output for node in region[:-1] for output in node.outputs)]
    return all(not v.is_graph_output() and all(user in nodes for user, _ in v.uses()) for v in values)


def _consumers(value: ir.Value) -> list[ir.Node]:
    return [user for user, _ in value.uses()]

"""Finds values that can be computed straight into their place in a Concat of channels, so that it copies nothing."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Home:
    """Channels from `start` of the value `whole`, whose shape is `shape`."""

    whole: ir.Value
    shape: tuple[int, ...]
    start: int


def find_homes(graph: ir.Graph, lanes: int) -> dict[ir.Value, Home]:
    """The homes of values that are concatenated at whole blocks of `lanes` channels.

    A value that is concatenated several times lives in the last result; chains of Concats, as DenseNet has, share the memory
    of their end.
    """
    homes: dict[ir.Value, Home] = {}
    for node in reversed(graph):
        if node.op_type != "Concat" or node.domain:
            continue
        whole = node.outputs[0]
        shape = _static_shape(whole)
        if shape is None or len(shape) < 3 or node.attributes["axis"].as_int() not in (1, 1 - len(shape)):
            continue
        for value, start in _aligned_parts(node, lanes):
            if value.producer() is not None and not value.is_graph_output():
                homes.setdefault(value, Home(whole, shape, start))
    return homes


def _aligned_parts(node: ir.Node, lanes: int) -> list[tuple[ir.Value, int]]:
    """The inputs that start and end with a block, with their first channels; none where some channels are unknown or odd."""
    parts, start = [], 0
    for value in node.inputs:
        shape = None if value is None else _static_shape(value)
        if value is None or shape is None or shape[1] % lanes:
            return []
        parts.append((value, start))
        start += shape[1]
    return parts


def _static_shape(value: ir.Value) -> tuple[int, ...] | None:
    if value.shape is None or not all(isinstance(extent, int) for extent in value.shape):
        return None
    return tuple(int(extent) for extent in value.shape.numpy())

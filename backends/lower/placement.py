"""Finds values that can be computed straight into their place in a Concat of channels, so that it copies nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.model import edit


@dataclass(frozen=True)
class Home:
    """Channels from `start` of the value `whole`, whose shape is `shape`."""

    whole: ir.Value
    shape: tuple[int, ...]
    start: int


def find_homes(graph: ir.Graph, lanes: int) -> dict[ir.Value, Home]:
    """The homes of values that are concatenated at whole blocks of `lanes` channels.

    A value that is concatenated several times lives in the last result; chains of Concats, as DenseNet has, share the memory
    of their end. A value whose channels are parted and concatenated again, as in cross-stage blocks, lives there as a whole.
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
    for value in dict.fromkeys(source for part in homes if (source := _parted(part)) is not None):
        home = _home_of_parts(value, homes)
        if home is not None and value.producer() is not None and not value.is_graph_output():
            homes.setdefault(value, home)
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


def _parted(part: ir.Value) -> ir.Value | None:
    """The value of which a Split or a Slice made this one."""
    node = part.producer()
    return (
        node.inputs[0]
        if node is not None and node.op_type in ("Slice", "Split") and not node.domain
        else None
    )


def _home_of_parts(value: ir.Value, homes: dict[ir.Value, Home]) -> Home | None:
    """Where all channels of a value lie one after the other if its parts lie where they live; None where they do not."""
    shape = _static_shape(value)
    found = sorted(
        ((start, extent, homes[part]) for part, start, extent in _parts(value) if part in homes),
        key=lambda each: each[0],
    )
    if shape is None or not found or found[0][0] != 0:
        return None
    whole, origin, end = found[0][2].whole, found[0][2].start, 0
    for start, extent, home in found:
        if (start, home.whole, home.start) != (end, whole, origin + end):
            return None
        end += extent
    return Home(whole, found[0][2].shape, origin) if end == shape[1] else None


def _parts(value: ir.Value) -> Iterator[tuple[ir.Value, int, int]]:
    """Runs of whole channels that are taken out of a value: each with its first channel and how many there are."""
    shape = _static_shape(value)
    for user, position in value.uses():
        if shape is None or position or user.domain:
            continue
        start = 0 if user.op_type == "Split" else _first_channel(user)
        for part in user.outputs if start is not None else ():
            extents = _static_shape(part)
            if start is None or extents is None or (extents[:1], extents[2:]) != (shape[:1], shape[2:]):
                break
            yield part, start, extents[1]
            start += extents[1]


def _first_channel(node: ir.Node) -> int | None:
    """Where a Slice of neighbouring channels alone begins; None for any other one, and other nodes."""
    if node.op_type != "Slice" or len(node.inputs) < 4:
        return None
    starts, _, axes, *steps = (None if value is None else edit.constant(value) for value in node.inputs[1:])
    if starts is None or axes is None or axes.tolist() != [1] or starts[0] < 0:
        return None
    if steps and (steps[0] is None or steps[0].tolist() != [1]):
        return None
    return int(starts[0])


def _static_shape(value: ir.Value) -> tuple[int, ...] | None:
    if value.shape is None or not all(isinstance(extent, int) for extent in value.shape):
        return None
    return tuple(int(extent) for extent in value.shape.numpy())

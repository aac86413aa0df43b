"""Chains of Relu, Clip, Min and Max with constant bounds become one Clip, or one Relu."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.fuse.terms import scalar
from graphopt.rewriting.pattern import Op
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Bounds:
    """``source`` limited to ``low .. high``; infinities where there is no limit."""

    source: ir.Value
    low: float = -np.inf
    high: float = np.inf

    def within(self, outer: "Bounds") -> "Bounds":
        """These bounds applied first, then the ``outer`` ones."""
        low, high = np.clip([self.low, self.high], outer.low, outer.high)
        return Bounds(self.source, float(low), float(high))


def bounds(node: ir.Node) -> Bounds | None:
    """What a node limits and to which numbers, or None if it does something else."""
    reader = _READERS.get(node.op_type) if node.domain == "" else None
    found = reader(node) if reader is not None else None
    return found if found is not None and found.low <= found.high else None


def _relu(node: ir.Node) -> Bounds | None:
    return None if node.inputs[0] is None else Bounds(node.inputs[0], low=0.0)


def _clip(node: ir.Node) -> Bounds | None:
    limits = [_clip_limit(node, index, name) for index, name in ((1, "min"), (2, "max"))]
    if node.inputs[0] is None or any(limit is not None and np.isnan(limit) for limit in limits):
        return None
    low, high = limits
    return Bounds(node.inputs[0], -np.inf if low is None else low, np.inf if high is None else high)


def _clip_limit(node: ir.Node, index: int, name: str) -> float | None:
    """The number; None if there is no limit; NaN if it is not constant. The defaults of old opsets are no limit."""
    given = attribute(node, name)
    if given is not None:
        return None if abs(given) >= np.finfo(np.float32).max else float(given)
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return None
    found = scalar(value)
    return np.nan if found is None else found


def _extremum(node: ir.Node) -> Bounds | None:
    """Min or Max of one value and one number."""
    inputs = [value for value in node.inputs if value is not None]
    sources = [value for value in inputs if edit.tensor(value) is None]
    numbers = [scalar(value) for value in inputs if edit.tensor(value) is not None]
    if len(sources) != 1 or len(numbers) != 1 or numbers[0] is None or not _keeps_rank(node, sources[0]):
        return None
    return (
        Bounds(sources[0], high=numbers[0]) if node.op_type == "Min" else Bounds(sources[0], low=numbers[0])
    )


def _keeps_rank(node: ir.Node, source: ir.Value) -> bool:
    result = node.outputs[0].shape
    return source.shape is not None and result is not None and len(source.shape) == len(result)


_READERS: dict[str, Callable[[ir.Node], Bounds | None]] = {
    "Clip": _clip,
    "Max": _extremum,
    "Min": _extremum,
    "Relu": _relu,
}


def _limit(match: Match) -> Replacement:
    outer = bounds(match.root)
    if outer is None or match.root.outputs[0].dtype not in FLOATS:
        return None
    inner = _private_inner(outer.source)
    if inner is None:
        return None if _is_plain(match.root, outer) else _build(match, outer)
    return _build(match, inner.within(outer))


def _private_inner(value: ir.Value) -> Bounds | None:
    """The bounds of the node that computes ``value``, if nobody else uses it."""
    producer = value.producer()
    if producer is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return bounds(producer)


def _is_plain(node: ir.Node, found: Bounds) -> bool:
    """Whether the node is written in the simplest way already."""
    return node.op_type == "Relu" or (node.op_type == "Clip" and not _is_relu(found))


def _is_relu(found: Bounds) -> bool:
    return found.low == 0.0 and found.high == np.inf


def _build(match: Match, wanted: Bounds) -> Replacement:
    if _is_relu(wanted):
        return match.op("Relu", [wanted.source])
    dtype = match.root.outputs[0].dtype
    assert dtype is not None
    if match.opset < 6:
        return Refuse("Clip needs opset 6")
    limits = [limit if np.isfinite(limit) else None for limit in (wanted.low, wanted.high)]
    if match.opset < 11:
        return match.op("Clip", [wanted.source], min=limits[0], max=limits[1])
    arrays = [None if limit is None else np.array(limit, dtype.numpy()) for limit in limits]
    return match.op("Clip", [wanted.source, *_without_trailing_none(arrays)])


def _without_trailing_none(arrays: list[np.ndarray | None]) -> list[np.ndarray | None]:
    return arrays[:1] if arrays[1] is None else arrays


RULES = [Rule("bounds", Op(("Relu", "Clip", "Min", "Max"), ...), _limit)]

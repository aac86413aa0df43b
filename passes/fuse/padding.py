"""A Pad in front of a convolution or a pool becomes part of its own padding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.rewriting.pattern import Op, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule


@dataclass(frozen=True)
class Padding:
    """What a Pad adds before and after every axis, and the number that it fills in."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float

    @property
    def spatial(self) -> list[int]:
        """The amounts along the axes from 2 on, in the order of the attribute ``pads``."""
        return [*self.before[2:], *self.after[2:]]


def read_padding(node: ir.Node) -> Padding | Refuse:
    """The padding of a Pad node, if it is constant and only adds."""
    if attribute(node, "mode") != "constant":
        return Refuse("the padding is not constant")
    rank = None if node.inputs[0] is None or node.inputs[0].shape is None else len(node.inputs[0].shape)
    pads, value = _amounts(node), _fill(node)
    if rank is None or pads is None or value is None:
        return Refuse("the amounts, the value or the rank are unknown")
    axes = _axes(node, rank)
    if axes is None or len(pads) != 2 * len(axes):
        return Refuse("the axes are unknown")
    before, after = [0] * rank, [0] * rank
    for axis, start, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        before[axis], after[axis] = start, end
    if any(before[:2] + after[:2]) or min(before + after) < 0:
        return Refuse("it pads other axes than the spatial ones, or crops")
    return Padding(tuple(before), tuple(after), value)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _amounts(node: ir.Node) -> list[int] | None:
    given = attribute(node, "pads")
    array = edit.constant(_input(node, 1)) if given is None else np.asarray(given)
    return None if array is None else [int(amount) for amount in array.reshape(-1)]


def _fill(node: ir.Node) -> float | None:
    if attribute(node, "pads") is not None:
        return float(attribute(node, "value"))
    value = _input(node, 2)
    if value is None:
        return 0.0
    array = edit.constant(value)
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    value = _input(node, 3)
    if value is None:
        return list(range(rank))
    array = edit.constant(value)
    return None if array is None else [int(axis) % rank for axis in array.reshape(-1)]


def _own_pads(node: ir.Node, count: int) -> list[int] | Refuse:
    if attribute(node, "auto_pad") not in ("NOTSET", "VALID"):
        return Refuse("auto_pad depends on the padded size")
    return list(attribute(node, "pads") or [0] * count)


PAD = Op("Pad", "x", ...)


def _merged(match: Match) -> tuple[list[int], Padding, bool] | Refuse:
    """The sum of both paddings, the one of the Pad, and whether the operator has padding of its own."""
    padding = read_padding(match.node(PAD))
    if isinstance(padding, Refuse):
        return padding
    own = _own_pads(match.root, len(padding.spatial))
    if isinstance(own, Refuse):
        return own
    return [one + other for one, other in zip(own, padding.spatial, strict=True)], padding, any(own)


def _into_conv(match: Match) -> Replacement:
    found = _merged(match)
    if isinstance(found, Refuse):
        return found
    pads, padding, _ = found
    if padding.value != 0:
        return Refuse("the padding is not zero")
    inputs = [match["x"], match["w"], match.get("b")]
    return match.op("Conv", inputs, attributes_of=match.root, pads=pads, auto_pad=None)


def _into_average_pool(match: Match) -> Replacement:
    """What a Pad adds counts for the average; what the pool itself adds only with count_include_pad."""
    found = _merged(match)
    if isinstance(found, Refuse):
        return found
    pads, padding, has_own = found
    if padding.value != 0:
        return Refuse("the padding is not zero")
    if has_own and not attribute(match.root, "count_include_pad"):
        return Refuse("the pool does not count its own padding")
    if match.opset < 7 or attribute(match.root, "ceil_mode"):
        return Refuse("ceil_mode, or an opset before 7")
    return _pool(match, pads, count_include_pad=1)


def _into_max_pool(match: Match) -> Replacement:
    """MaxPool fills with the lowest number: the same as zeros where no element is negative."""
    found = _merged(match)
    if isinstance(found, Refuse):
        return found
    pads, padding, _ = found
    if any(output.uses() or output.is_graph_output() for output in match.root.outputs[1:]):
        return Refuse("the indices are used")
    if attribute(match.root, "ceil_mode") or any(
        size != 1 for size in attribute(match.root, "dilations") or ()
    ):
        return Refuse("ceil_mode or dilations")
    if padding.value != -np.inf and not (padding.value == 0 and _is_non_negative(match["x"])):
        return Refuse("the padding may be the maximum")
    return _pool(match, pads)


def _pool(match: Match, pads: list[int], **attributes: Any) -> Replacement:
    kernel = attribute(match.root, "kernel_shape")
    if any(amount >= size for amount, size in zip(pads, (*kernel, *kernel), strict=True)):
        return Refuse("the padding is not smaller than the kernel")
    attributes.update(pads=pads, auto_pad=None)
    return match.op(match.root.op_type, [match["x"]], attributes_of=match.root, **attributes)


NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softplus", "Softmax", "Exp", "Abs"})


def _is_non_negative(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None or producer.domain != "":
        return False
    if producer.op_type == "Clip":
        low = attribute(producer, "min")
        array = edit.constant(_input(producer, 1))
        return (low is not None and low >= 0) or (array is not None and bool(np.all(array >= 0)))
    return producer.op_type in NON_NEGATIVE


RULES = [
    Rule("pad into Conv", Op("Conv", PAD, "w", Var("b", optional=True)), _into_conv),
    Rule("pad into AveragePool", Op("AveragePool", PAD), _into_average_pool),
    Rule("pad into MaxPool", Op("MaxPool", PAD), _into_max_pool),
]

"""Constant factors, summands and batch normalisation next to a convolution, Gemm or MatMul move into its weights."""

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.fuse.weights import ANCHORS, Anchor, Channels, in_dtype, new_weight
from graphopt.rewriting.pattern import Const, Op
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

SMALL = 1 << 20
C = Const("c", max_size=SMALL, where=lambda array: array.dtype.kind == "f")
STATISTICS = (Const("scale"), Const("shift"), Const("mean"), Const("variance"))


def channels_of(match: Match, node: ir.Node, rank: int, axis: int, count: int) -> Channels | Refuse:
    """What ``node`` (one of the operators below) does to each of ``count`` channels along ``axis``."""
    if node.op_type == "BatchNormalization":
        return _batch_normalisation(match, node, rank, axis, count)
    if node.op_type == "Neg":
        return Channels(-np.ones(count), np.zeros(count))
    number = _along(match.array("c").astype(np.float64), rank, axis, count)
    if number is None:
        return Refuse("the constant is not per channel")
    one, zero = np.ones(count), np.zeros(count)
    with np.errstate(divide="ignore"):
        return {
            "Add": lambda: Channels(one, number),
            "Mul": lambda: Channels(number, zero),
            "Div": lambda: Channels(1 / number, zero),
            "Sub": lambda: Channels(-one, number) if node.inputs[0] is match["c"] else Channels(one, -number),
        }[node.op_type]()


def _along(array: np.ndarray, rank: int, axis: int, count: int) -> np.ndarray | None:
    """``array`` as a vector over the channels, or None if it varies along, or adds, another axis."""
    if array.ndim > rank:
        return None
    dims = [1] * (rank - array.ndim) + list(array.shape)
    size = dims.pop(axis)
    if size not in (1, count) or any(dim != 1 for dim in dims):
        return None
    return np.broadcast_to(array.reshape(-1), (count,))


def _batch_normalisation(match: Match, node: ir.Node, rank: int, axis: int, count: int) -> Channels | Refuse:
    refusal = _why_not_inference(node, match.opset)
    if refusal is not None:
        return refusal
    if axis % rank != 1:
        return Refuse("the channels are not along axis 1")
    gain, shift, mean, variance = (match.array(name).astype(np.float64) for name in _STATISTIC_NAMES)
    if gain.shape != (count,):
        return Refuse("the statistics are not per channel")
    scale = gain / np.sqrt(variance + attribute(node, "epsilon"))
    return Channels(scale, shift - mean * scale)


_STATISTIC_NAMES = ("scale", "shift", "mean", "variance")


def _why_not_inference(node: ir.Node, opset: int) -> Refuse | None:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return Refuse("the statistics are outputs")
    if attribute(node, "training_mode") or (opset < 7 and not attribute(node, "is_test")):
        return Refuse("it is in training mode")
    if attribute(node, "spatial") == 0:
        return Refuse("the statistics are not per channel")
    return None


def _after(anchor: Anchor) -> list[Rule]:
    """Rules for constants that follow ``anchor``."""

    def rewrite(match: Match) -> Replacement:
        node, weight = match.node(anchor.pattern), match.array("w")
        result = node.outputs[0].shape
        if result is None:
            return Refuse("the rank is unknown")
        count = anchor.channels(node, weight)
        channels = channels_of(match, match.root, len(result), anchor.channel_axis, count)
        return channels if isinstance(channels, Refuse) else anchor.absorb(match, node, channels)

    (name,) = anchor.pattern.op_types
    return [Rule(f"{what} after {name}", root, rewrite) for what, root in _operators(anchor.pattern)]


def _operators(operand: Op | str) -> list[tuple[str, Op]]:
    """The operators that ``channels_of`` understands, applied to ``operand``."""
    return [
        ("constant", Op(("Add", "Mul"), operand, C)),
        ("constant", Op(("Sub", "Div"), operand, C)),
        ("constant", Op("Sub", C, operand)),
        ("negation", Op("Neg", operand)),
        ("batch norm", Op("BatchNormalization", operand, *STATISTICS)),
    ]


def _before_conv(operator: Op, what: str) -> Rule:
    """A rule for constants in front of a convolution; a summand only where no padding would need it too."""
    conv = Op("Conv", operator, Const("w"), Const("b", optional=True))

    def rewrite(match: Match) -> Replacement:
        weight, source = match.array("w"), match["y"].shape
        groups = attribute(match.root, "group")
        count = weight.shape[1] * groups
        if source is None or len(source) != weight.ndim or source[1] != count:
            return Refuse("the channels of the input are unknown")
        channels = channels_of(match, match.node(operator), weight.ndim, 1, count)
        if isinstance(channels, Refuse):
            return channels
        if channels.shifts and _pads(match.root):
            return Refuse("the padding would have to be shifted as well")
        return _scaled_input(match, channels, groups)

    return Rule(f"{what} before Conv", conv, rewrite)


def _pads(node: ir.Node) -> bool:
    return attribute(node, "auto_pad") not in ("NOTSET", "VALID") or any(attribute(node, "pads") or ())


def _scaled_input(match: Match, channels: Channels, groups: int) -> Replacement:
    weight = match.array("w").astype(np.float64)
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    scale, shift = (
        part.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2)) for part in (channels.scale, channels.shift)
    )
    scaled = (
        new_weight(match, lambda _: (by_group * scale).reshape(weight.shape))
        if channels.scales
        else match["w"]
    )
    bias = (by_group * shift).reshape(weight.shape[0], -1).sum(axis=1)
    if match.get("b") is not None:
        bias = bias + match.array("b")
    rounded = in_dtype(bias, match.array("w").dtype)
    if isinstance(scaled, Refuse):
        return scaled
    if isinstance(rounded, Refuse):
        return rounded
    return match.op("Conv", [match["y"], scaled, rounded], attributes_of=match.root)


RULES: list[Rule] = [
    *(rule for anchor in ANCHORS for rule in _after(anchor)),
    *(_before_conv(operator, what) for what, operator in _operators("y")),
]

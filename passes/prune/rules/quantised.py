"""Integers between operators: scales and zero points of channels go with them."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Flow, dims, label, rank
from graphopt.passes.prune.rules.elementwise import broadcast, through
from graphopt.passes.prune.rules.rule import Rule, combine, lifted


def linear(flow: Flow, node: ir.Node) -> None:
    """QuantizeLinear and DequantizeLinear, of a tensor or by channel; blocks of channels stay."""
    source = node.inputs[0]
    if attribute(node, "block_size"):
        for value in node.inputs:
            flow.freeze(value, f"{label(node)} has scales for blocks")
        return
    axis = attribute(node, "axis")
    channels = flow.axis(source, 1 if axis is None else axis) if rank(node.inputs[1]) == 1 else None
    for value in node.inputs[1:]:
        if rank(value) == 1 and (dims(value) or [1])[0] != 1:
            flow.meet(flow.axis(value, 0), channels, f"{label(node)} has a scale for it")
    through(flow, node)


def binary(flow: Flow, node: ir.Node) -> None:
    """Sums and products of integers with scales: operands 0 and 3."""
    width = rank(node.outputs[0])
    operands = [] if width is None else [lifted(flow, node.inputs[index], width) for index in (0, 3)]
    if width is None or None in operands:
        for value in node.inputs:
            flow.freeze(value, f"the rank of what {label(node)} reads is not known")
        return
    flow.put(node.outputs[0], combine(flow, [each for each in operands if each is not None]))


RULES: dict[tuple[str, str], Rule] = {
    ("", "DequantizeLinear"): Rule(linear),
    ("", "QuantizeLinear"): Rule(linear),
    **{("com.microsoft", name): Rule(binary) for name in ("QLinearAdd", "QLinearMul")},
    **{("com.microsoft", name): Rule(through) for name in ("QLinearLeakyRelu", "QLinearSigmoid")},
    ("com.microsoft", "BiasGelu"): Rule(broadcast),
}

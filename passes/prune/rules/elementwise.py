"""Operators that work on elements: channels pass through, and meet those of other operands."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.passes.prune.flow import Flow, rank
from graphopt.passes.prune.rules.rule import Rule, combine, lifted


def through(flow: Flow, node: ir.Node) -> None:
    """Results have the channels of the first operand."""
    for output in node.outputs:
        flow.put(output, flow.blocks(node.inputs[0]))


def broadcast(flow: Flow, node: ir.Node) -> None:
    """Channels of several operands meet."""
    wide = rank(node.outputs[0])
    operands = [] if wide is None else [lifted(flow, each, wide) for each in node.inputs if each is not None]
    if wide is None or None in operands:
        for value in node.inputs:
            flow.freeze(value, f"the rank of {node.outputs[0].name!r} is not known")
        return
    flow.put(node.outputs[0], combine(flow, [each for each in operands if each is not None]))


UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Clip",
]
BROADCAST = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]

RULES: dict[tuple[str, str], Rule] = {
    **{("", name): Rule(through) for name in UNARY},
    **{("", name): Rule(broadcast) for name in BROADCAST},
    ("com.microsoft", "Gelu"): Rule(through),
    ("com.microsoft", "QuickGelu"): Rule(through),
}

"""Which constants of a model are its weights, and what they are called in a torch module."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import onnx_ir as ir
from torch import nn

from graphopt.model import edit

FEWEST = 2
"""Elements from which a constant may be a weight."""

WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "GatherElements": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
"""Operators -> their inputs that are learned."""

CHANNELS: dict[str, tuple[int, ...]] = {"Add": (0, 1), "Mul": (0, 1), "Sub": (1,)}
"""Operators whose constants are learned where these have one axis of more than one element: biases and scales of channels, and not
tables of positions or masks."""

MOVERS = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators through which a weight may reach the one that it is a weight of."""

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def weights(model: ir.Model) -> list[str]:
    """The names of the initializers that are learned: floats of a rank of 1 or more, read as weights, biases or scales."""
    return [name for name, value in model.graph.initializers.items() if _is_weight(value)]


def _is_weight(value: ir.Value) -> bool:
    found = edit.tensor(value)
    if found is None or found.dtype not in FLOATS or len(found.shape) == 0 or found.size < FEWEST:
        return False
    long_axes = sum(extent > 1 for extent in found.shape.numpy())
    return any(
        index in WEIGHTS.get(node.op_type, ()) or (long_axes == 1 and index in CHANNELS.get(node.op_type, ()))
        for node, index in _readers(value)
    )


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    for use in value.uses():
        yield use.node, use.idx
        if use.node.op_type in MOVERS and use.idx == 0:
            for output in use.node.outputs:
                yield from _readers(output)


def statistics(model: ir.Model) -> list[str]:
    """The names of the initializers that are running means and variances."""
    return [
        name
        for name, value in model.graph.initializers.items()
        if edit.tensor(value) is not None
        and any(use.node.op_type == "BatchNormalization" and use.idx > 2 for use in value.uses())
    ]


def encode(name: str, module: nn.Module) -> str:
    """A name that torch takes for a part of `module`: without dots, and not that of an attribute; `decode` reverses it."""
    text = name.replace("%", "%25").replace(".", "%2E")
    return f"%{ord(text[0]):02X}{text[1:]}" if hasattr(module, text) else text


def decode(name: str) -> str:
    """The name of an initializer from that of a part of a module."""
    return unquote(name)

"""Counts of a model: nodes, operators, parameters, bytes, multiply-accumulates, inputs and outputs."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute


@dataclass(frozen=True)
class Tensor:
    """An input or output: its dtype as numpy calls it, and its shape with names for free dimensions."""

    name: str
    dtype: str
    shape: list[int | str]


@dataclass(frozen=True)
class Statistics:
    """Free dimensions count as 1 in ``macs``; ``params`` and ``bytes`` are those of the initializers."""

    nodes: int
    ops: dict[str, int]
    params: int
    bytes: int
    macs: int
    inputs: list[Tensor]
    outputs: list[Tensor]


def statistics(model: ir.Model) -> Statistics:
    """Counts the main graph and its subgraphs. Shapes must have been inferred for ``macs`` to be complete."""
    nodes = list(edit.nodes(model.graph))
    tensors = [
        value.const_value
        for graph in edit.graphs(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    return Statistics(
        nodes=len(nodes),
        ops=dict(sorted(Counter(node.op_type for node in nodes).items())),
        params=sum(tensor.size for tensor in tensors),
        bytes=sum(edit.byte_size(tensor) for tensor in tensors),
        macs=sum(macs(node) for node in nodes),
        inputs=[_tensor(value) for value in model.graph.inputs if not value.is_initializer()],
        outputs=[_tensor(value) for value in model.graph.outputs],
    )


def macs(node: ir.Node) -> int:
    """The multiply-accumulates of one node; 0 for operators that do not multiply matrices or where a rank is unknown."""
    count = _MACS.get((node.domain, node.op_type))
    return 0 if count is None else count(node)


INTEGER = frozenset(
    {
        ("", "ConvInteger"),
        ("", "MatMulInteger"),
        ("", "QLinearConv"),
        ("", "QLinearMatMul"),
        ("com.microsoft", "DynamicQuantizeMatMul"),
        ("com.microsoft", "MatMulIntegerToFloat"),
        ("com.microsoft", "QGemm"),
    }
)
"""Operators whose products are of integers."""


def is_integer(node: ir.Node) -> bool:
    """Whether the multiply-accumulates of a node are of integers."""
    return (node.domain, node.op_type) in INTEGER


def _dims(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        return []
    return [dim if isinstance(dim, int) else 1 for dim in value.shape]


def _size(value: ir.Value | None) -> int:
    return math.prod(_dims(value)) if value is not None and value.shape is not None else 0


def _conv(node: ir.Node, weight: int = 1) -> int:
    kernel = _dims(node.inputs[weight])
    return _size(node.outputs[0]) * math.prod(kernel[1:]) if kernel else 0


def _conv_transpose(node: ir.Node) -> int:
    kernel = _dims(node.inputs[1])
    return _size(node.inputs[0]) * math.prod(kernel[1:]) if kernel else 0


def _matmul(node: ir.Node) -> int:
    left = _dims(node.inputs[0])
    return _size(node.outputs[0]) * left[-1] if left else 0


def _gemm(node: ir.Node) -> int:
    left = _dims(node.inputs[0])
    return _size(node.outputs[0]) * left[0 if attribute(node, "transA") else 1] if left else 0


def _recurrent(node: ir.Node) -> int:
    """Sequence length x batch x (input weights + recurrent weights)."""
    steps = _dims(node.inputs[0])[:2]
    return math.prod(steps) * (_size(node.inputs[1]) + _size(node.inputs[2])) if steps else 0


_MACS: dict[tuple[str, str], Callable[[ir.Node], int]] = {
    ("", "Conv"): _conv,
    ("", "ConvInteger"): _conv,
    ("", "QLinearConv"): lambda node: _conv(node, weight=3),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "MatMul"): _matmul,
    ("", "MatMulInteger"): _matmul,
    ("", "QLinearMatMul"): _matmul,
    ("", "Gemm"): _gemm,
    ("com.microsoft", "DynamicQuantizeMatMul"): _matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul,
    ("com.microsoft", "QGemm"): _gemm,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
}


def _tensor(value: ir.Value) -> Tensor:
    dims = value.shape if value.shape is not None else ()
    shape = [dim if isinstance(dim, int) else dim.value or "?" for dim in dims]
    return Tensor(value.name or "", _numpy_name(value.dtype), shape)


def _numpy_name(dtype: ir.DataType | None) -> str:
    return "unknown" if dtype is None else str(dtype.numpy().name) if dtype != ir.DataType.STRING else "str"

"""Lowers a whole model, node by node in graph order, into a program of kernels."""

from __future__ import annotations

import math

import onnx_ir as ir

from graphopt.backends.codegen.builder import const
from graphopt.backends.codegen.program import Buffer, Program, Role
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import Anchor, Lowered, Pointwise, Refused, dtype_of_value, shape_of
from graphopt.backends.lower.pointwise import lower_pointwise
from graphopt.backends.lower.table import OPERATORS
from graphopt.backends.tensor import Tensor, lazy, stored
from graphopt.errors import UnsupportedError, UnsupportedNode


def lower_model(model: ir.Model, lanes: int) -> Program:
    """The program of a model whose shapes are all fixed.

    Raises UnsupportedError with every node that cannot be lowered and the reason, before any code is generated.
    """
    ctx = Lowering(lanes, dict(model.opset_imports), OPERATORS)
    inputs = [_bind_input(ctx, value) for value in model.graph.inputs if not value.is_initializer()]
    ctx.outputs = dict.fromkeys(model.graph.outputs)
    refused: list[UnsupportedNode] = []
    lower_nodes(ctx, model.graph, refused)
    if refused:
        raise UnsupportedError(refused)
    outputs = [_bind_output(ctx, value) for value in model.graph.outputs]
    return Program(inputs, outputs, ctx.steps)


def lower_nodes(ctx: Lowering, graph: ir.Graph, refused: list[UnsupportedNode]) -> None:
    """Lower the nodes of a graph; those that cannot be are added to `refused` and stand for zeros meanwhile."""
    for node in graph:
        if node in ctx.done:
            continue
        ctx.done.add(node)
        ctx.layer = node.name or node.op_type
        try:
            lower_node(ctx, node)
        except Refused as reason:
            refused.append(UnsupportedNode(node.name or "", node.op_type, node.domain, str(reason)))
            _stand_in(ctx, node)


def lower_node(ctx: Lowering, node: ir.Node) -> None:
    """Lower one node; afterwards `ctx.values` holds the tensors of its outputs."""
    operator = ctx.operator(node)
    if operator is None:
        raise Refused("graphopt has no kernel for this operator")
    if isinstance(operator, Pointwise):
        lower_pointwise(ctx, node, operator)
    elif isinstance(operator, Anchor):
        operator.lower(ctx, node)
    else:
        assert isinstance(operator, Lowered)
        for value, tensor in zip(node.outputs, operator.lower(ctx, node), strict=False):
            if tensor is not None:
                ctx.values[value] = tensor


def _bind_input(ctx: Lowering, value: ir.Value) -> Buffer:
    shape, dtype = shape_of(value), dtype_of_value(value)
    tensor = stored(Buffer(value.name or "", math.prod(shape), dtype, Role.INPUT), shape)
    ctx.values[value] = tensor
    assert tensor.storage is not None
    return tensor.storage.buffer


def _bind_output(ctx: Lowering, value: ir.Value) -> Buffer:
    """The caller's buffer of an output; values that live elsewhere are copied into it."""
    buffer = ctx.outputs[value]
    if buffer is None:
        tensor = ctx.tensor(value)
        buffer = Buffer(value.name or "", tensor.size, tensor.dtype, Role.OUTPUT)
        ctx.outputs[value] = buffer
        ctx.layer = f"output {value.name}"
        ctx.copy(tensor, stored(buffer, tensor.shape))
    return buffer


def _stand_in(ctx: Lowering, node: ir.Node) -> None:
    for value in node.outputs:
        shape = tuple(d if isinstance(d, int) else 1 for d in value.shape or ())
        ctx.values[value] = _zeros(shape, "float32" if value.dtype is None else str(value.dtype.numpy().name))


def _zeros(shape: tuple[int, ...], dtype: str) -> Tensor:
    return lazy(shape, dtype, lambda k, index: const(0, dtype))

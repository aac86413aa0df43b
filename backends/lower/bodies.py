"""What control-flow operators share: lowering a body, the outer values it reads, and scalars for the driver."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphopt.backends.codegen.program import Buffer
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.nodes import lower_inner_nodes
from graphopt.backends.lower.operator import Refused
from graphopt.backends.tensor import Tensor


def body_of(node: ir.Node, name: str) -> ir.Graph:
    """The graph attribute `name`."""
    return node.attributes[name].as_graph()


def lower_body(ctx: Lowering, body: ir.Graph) -> list[Tensor]:
    """Lower a body, whose inputs have their tensors already, and give the tensors of its outputs.

    Raises Refused with the first reason met inside.
    """
    lower_inner_nodes(ctx, body, f"in its body {body.name!r}")
    return [ctx.tensor(value) for value in body.outputs]


def bind_body_input(ctx: Lowering, value: ir.Value, tensor: Tensor) -> None:
    """Let an input of a body stand for `tensor`, whatever shape the model declares for it."""
    if value.dtype is not None and str(value.dtype.numpy().name) != tensor.dtype:
        raise Refused(
            f"{value.name!r} is given {tensor.dtype} where its body declares {value.dtype.numpy().name}"
        )
    value.shape = ir.Shape(tensor.shape)
    ctx.values[value] = tensor


def captured_values(body: ir.Graph) -> Iterator[ir.Value]:
    """The values of outer graphs that a body, or a graph inside it, reads; each once."""
    inner = {body, *body.subgraphs()}
    reads = [value for node in body.all_nodes() for value in node.inputs if value is not None]
    results = [value for graph in inner for value in graph.outputs]
    yield from (value for value in dict.fromkeys([*reads, *results]) if value.graph not in inner)


def materialise_captured(ctx: Lowering, body: ir.Graph) -> None:
    """Bring what a loop's body reads from outside into memory, once instead of in every iteration."""
    for value in captured_values(body):
        if value in ctx.values and ctx.values[value].is_lazy:
            ctx.values[value] = ctx.in_memory(ctx.values[value])


def scalar_in_memory(ctx: Lowering, tensor: Tensor) -> Buffer:
    """A buffer of its own that holds the single element of `tensor`, for the driver to read."""
    if tensor.size != 1:
        raise Refused(f"a scalar is needed, not a tensor of shape {list(tensor.shape)}")
    copy = ctx.new(tensor.shape, tensor.dtype)
    ctx.copy(tensor, copy)
    return storage_of(copy).buffer

"""Lowers the nodes of one graph, the main one or the body of a control-flow operator, in graph order."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphopt.backends.codegen.builder import const
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.inference import evaluate, infer_outputs, note_shapes
from graphopt.backends.lower.operator import Anchor, Lowered, Pointwise, Refused
from graphopt.backends.lower.pointwise import lower_pointwise
from graphopt.backends.tensor import Tensor, lazy
from graphopt.errors import UnsupportedNode


def lower_nodes(ctx: Lowering, nodes: Iterable[ir.Node], refused: list[UnsupportedNode]) -> None:
    """Lower nodes in order; those that cannot be are added to `refused` and stand for zeros meanwhile."""
    for node in nodes:
        if node in ctx.done:
            continue
        ctx.done.add(node)
        ctx.layer = node.name or node.op_type
        try:
            infer_outputs(ctx, node)
            if not evaluate(ctx, node):
                lower_node(ctx, node)
            note_shapes(ctx, node)
        except Refused as reason:
            refused.append(UnsupportedNode(node.name or "", node.op_type, node.domain, str(reason)))
            _stand_in(ctx, node)


def lower_inner_nodes(ctx: Lowering, nodes: Iterable[ir.Node], where: str) -> None:
    """Lower the nodes of a body that belongs to one outer node; raises Refused with the first reason met in it."""
    refused: list[UnsupportedNode] = []
    layer = ctx.layer
    lower_nodes(ctx, nodes, refused)
    ctx.layer = layer
    if refused:
        first = refused[0]
        raise Refused(f"{where}: {first.op} {first.name!r}: {first.reason}")


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


def _stand_in(ctx: Lowering, node: ir.Node) -> None:
    for value in node.outputs:
        shape = tuple(d if isinstance(d, int) else 1 for d in value.shape or ())
        ctx.values[value] = _zeros(shape, "float32" if value.dtype is None else str(value.dtype.numpy().name))


def _zeros(shape: tuple[int, ...], dtype: str) -> Tensor:
    return lazy(shape, dtype, lambda k, index: const(0, dtype))

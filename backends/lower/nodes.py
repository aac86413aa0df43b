"""Lowers the nodes of one graph, the main one or the body of a control-flow operator, in graph order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from graphopt.backends.codegen.program import Kernel, Step
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.inference import evaluate, infer_outputs, note_shapes
from graphopt.backends.lower.operator import Anchor, Lowered, Operator, Pointwise, Refused, refuse_bfloat16
from graphopt.backends.lower.pointwise import lower_pointwise
from graphopt.errors import UnsupportedNode
from graphopt.model import edit
from graphopt.model.statistics import is_integer, macs


def lower_nodes(ctx: Lowering, nodes: Iterable[ir.Node], refused: list[UnsupportedNode]) -> None:
    """Lower nodes in order; those that cannot be are added to `refused`.

    What depends on a refused node is not lowered, but still refused by itself where no operator of the table fits.
    """
    lost: set[ir.Value] = set()
    for node in nodes:
        if node in ctx.done:
            continue
        ctx.done.add(node)
        ctx.layer = node.name or node.op_type
        try:
            if any(value in lost for value in _reads(node)):
                lost.update(node.outputs)
                _require_operator(ctx, node)
            else:
                _lower_or_evaluate(ctx, node)
        except Refused as reason:
            refused.append(UnsupportedNode(node.name or "", node.op_type, node.domain, str(reason)))
            lost.update(node.outputs)


def _lower_or_evaluate(ctx: Lowering, node: ir.Node) -> None:
    infer_outputs(ctx, node)
    emitted, ctx.workload = len(ctx.steps), None
    if not evaluate(ctx, node):
        lower_node(ctx, node)
    _count_macs(node, ctx.steps[emitted:])
    note_shapes(ctx, node)


def _count_macs(node: ir.Node, steps: Iterable[Step]) -> None:
    """The work of a node counts for its last kernel, unless the nodes that it consists of were counted already."""
    kernels = [step for step in steps if isinstance(step, Kernel)]
    if kernels and not any(kernel.macs for kernel in kernels):
        kernels[-1].macs, kernels[-1].integer = macs(node), is_integer(node)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads, in its subgraphs too."""
    yield from (value for value in node.inputs if value is not None)
    for graph in edit.subgraphs(node):
        for inner in graph:
            yield from _reads(inner)


def _require_operator(ctx: Lowering, node: ir.Node) -> Operator:
    operator = ctx.operator(node)
    if operator is None:
        refuse_bfloat16((*node.inputs, *node.outputs))
        raise Refused("graphopt has no kernel for this operator")
    return operator


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
    operator = _require_operator(ctx, node)
    if isinstance(operator, Pointwise):
        lower_pointwise(ctx, node, operator)
    elif isinstance(operator, Anchor):
        operator.lower(ctx, node)
    else:
        assert isinstance(operator, Lowered)
        for value, tensor in zip(node.outputs, operator.lower(ctx, node), strict=False):
            if tensor is not None:
                ctx.values[value] = tensor

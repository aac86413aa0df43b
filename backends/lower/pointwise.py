"""Lowers elementwise operators: lazily where their value is read once, into memory where it is read by several kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.layout import Strided
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.fusion import fusable_region
from graphopt.backends.lower.operator import Pointwise, dtype_of_value, shape_of
from graphopt.backends.tensor import Index, Tensor, broadcast_index, lazy


def lower_pointwise(ctx: Lowering, node: ir.Node, operator: Pointwise) -> None:
    """Give the node's value a lazy tensor, or compute it now if more than one kernel will read it."""
    value = node.outputs[0]
    tensor = lazy_pointwise(ctx, node, operator)
    ctx.values[value] = tensor
    if value.is_graph_output() or (len(value.uses()) > 1 and not _region(ctx, value, tensor.shape)):
        out = ctx.result(value, tensor.shape, tensor.dtype, tensor.block)
        ctx.copy(tensor, out)


def lazy_pointwise(ctx: Lowering, node: ir.Node, operator: Pointwise, block: int = 0) -> Tensor:
    """The lazy tensor of an elementwise node. With `block`, operands of the full shape are first brought into blocks."""
    value = node.outputs[0]
    shape, dtype = shape_of(value), dtype_of_value(value)
    operands = [t if t is None else _operand(ctx, t, shape, block) for t in ctx.inputs(node)]
    present = [t for t in operands if t is not None]

    def read(k: KernelBuilder, index: Index) -> Expr:
        arguments = [None if t is None else t.read(k, broadcast_index(index, t.shape)) for t in operands]
        return operator.compute(k, node, arguments)

    preferred = max((t.block for t in present if t.shape == shape), default=0)
    return lazy(shape, dtype, read, operator.cost + sum(t.cost for t in present), block or preferred)


def epilogue(ctx: Lowering, node: ir.Node, block: int = 0) -> Epilogue:
    """The epilogue of a kernel that computes `node`: the elementwise operators that follow it, which are then done."""
    value = node.outputs[0]
    shape = shape_of(value)
    region = _region(ctx, value, shape)
    end = region[-1].outputs[0] if region else value
    _compute_conditional_operands(ctx, value, region)
    made = Epilogue(end, shape, dtype_of_value(value), block)
    ctx.values[value] = made.hole
    for follower in region:
        operator = ctx.operator(follower)
        assert isinstance(operator, Pointwise)
        ctx.values[follower.outputs[0]] = lazy_pointwise(ctx, follower, operator, block)
        ctx.layer += f"+{follower.op_type}"
    ctx.done.update(region)
    made.result = ctx.values[end]
    return made


def _compute_conditional_operands(ctx: Lowering, value: ir.Value, region: Sequence[ir.Node]) -> None:
    """Bring what a region reads besides `value` into memory where kernels must not compute it in their vectors."""
    inside = {value, *(node.outputs[0] for node in region)}
    for node in region:
        for operand in node.inputs:
            if operand is not None and operand not in inside and operand in ctx.values:
                ctx.values[operand] = ctx.unconditional(ctx.values[operand])


def following(ctx: Lowering, node: ir.Node) -> ir.Value:
    """The value that the epilogue of a kernel for `node` would end in."""
    value = node.outputs[0]
    region = _region(ctx, value, shape_of(value))
    return region[-1].outputs[0] if region else value


def _region(ctx: Lowering, value: ir.Value, shape: tuple[int, ...]) -> list[ir.Node]:
    graph = value.producer().graph if value.producer() is not None else None  # type: ignore[union-attr]

    def fusable(node: ir.Node) -> bool:
        return (
            node.graph is graph
            and isinstance(ctx.operator(node), Pointwise)
            and len(node.outputs) == 1
            and _static_shape(node.outputs[0]) == shape
        )

    return fusable_region(value, fusable, lambda v: v in ctx.values or v.const_value is not None)


def _static_shape(value: ir.Value) -> Sequence[Any] | None:
    return None if value.shape is None else tuple(value.shape)


def _operand(ctx: Lowering, tensor: Tensor, shape: tuple[int, ...], block: int) -> Tensor:
    strided = tensor.storage is not None and isinstance(tensor.storage.layout, Strided)
    if block and strided and tensor.shape == shape:
        return ctx.blocked(tensor)
    return tensor

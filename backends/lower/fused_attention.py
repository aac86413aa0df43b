"""Finds attention written as MatMul, Softmax and MatMul, with elementwise operators between them, and lowers it as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.backends.codegen.program import Kernel
from graphopt.backends.kernels.attention import AttentionKernel, AttentionTiles, choose_tiles
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.nodes import lower_inner_nodes
from graphopt.backends.lower.operands import columns_of
from graphopt.backends.lower.operator import attribute, dtype_of_value, shape_of
from graphopt.backends.lower.pointwise import epilogue, following
from graphopt.backends.tensor import Tensor

LEAST_QUERIES, LEAST_KEYS, LEAST_SIZE = 8, 32, 8
"""Extents below which three kernels are as good."""


@dataclass(frozen=True)
class Attention:
    """The nodes of an attention, and its operands: `[batch..., m, d]`, `[batch..., d, n]` and `[batch..., n, v]`."""

    scores: ir.Node
    softmax: ir.Node
    result: ir.Node
    queries: Tensor
    keys: Tensor
    values: ir.Value
    tiles: AttentionTiles


def find_attention(ctx: Lowering, node: ir.Node, queries: Tensor, keys: Tensor) -> Attention | None:
    """The attention that begins with a MatMul, where one kernel can compute it."""
    if queries.dtype != "float32" or min(queries.rank, keys.rank) < 2:
        return None
    softmax = _only_reader(following(ctx, node), 0)
    if softmax is None or not _is_softmax_of_rows(ctx, softmax):
        return None
    result = _only_reader(following(ctx, softmax), 0)
    if result is None or (result.op_type, result.domain, result.graph) != ("MatMul", node.domain, node.graph):
        return None
    values = result.inputs[1]
    if values is None or not all(_is_known(value) for value in (values, *result.outputs)):
        return None
    tiles = _tiles(ctx, queries.shape, shape_of(values))
    if tiles is None or not _bring_forward(ctx, values, node):
        return None
    return Attention(node, softmax, result, queries, keys, values, tiles)


def _only_reader(value: ir.Value, position: int) -> ir.Node | None:
    """The node that reads a float32 value as its input `position`, if nothing else does."""
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].idx != position:
        return None
    return uses[0].node if dtype_of_value(value) == "float32" and _is_known(uses[0].node.outputs[0]) else None


def _is_known(value: ir.Value) -> bool:
    """Whether its shape and type are."""
    return value.shape is not None and value.shape.is_static() and value.dtype is not None


def _is_softmax_of_rows(ctx: Lowering, node: ir.Node) -> bool:
    rank = len(shape_of(node.outputs[0])) if node.op_type == "Softmax" else 0
    return rank >= 2 and ctx.opset(node) >= 13 and attribute(node, "axis", -1) % rank == rank - 1


def _tiles(ctx: Lowering, queries: Sequence[int], values: Sequence[int]) -> AttentionTiles | None:
    """How a kernel works on operands of these shapes; None where three kernels do as well."""
    if len(values) < 2:
        return None
    (count, size), (keys, value_size) = queries[-2:], values[-2:]
    if ctx.lanes == 1 or count < LEAST_QUERIES or keys < LEAST_KEYS or min(size, value_size) < LEAST_SIZE:
        return None
    return choose_tiles(count, keys, size, value_size, ctx.core)


def _bring_forward(ctx: Lowering, value: ir.Value, scores: ir.Node) -> bool:
    """Lower now what a value still needs; False where that depends on the scores or has no operator."""
    waiting: dict[ir.Node, None] = {}
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or (node in ctx.done and node is not scores):
            continue
        if node is scores or node.graph is not scores.graph or ctx.operator(node) is None:
            return False
        waiting[node] = None
        pending += [each for each in node.inputs if each is not None]
    if waiting:
        assert scores.graph is not None
        lower_inner_nodes(ctx, [node for node in scores.graph if node in waiting], "as attention is computed")
    return True


def lower_attention(ctx: Lowering, found: Attention) -> None:
    """Emit the kernel of an attention, and of the elementwise operators that follow it."""
    tiles = found.tiles
    values = ctx.tensor(found.values)
    keys = columns_of(ctx, found.keys, tiles.scores.vectors, ctx.lanes)
    panels = columns_of(ctx, values, tiles.results.vectors, ctx.lanes)
    mask = epilogue(ctx, found.scores)
    weigh, after = (_take_in(ctx, node) for node in (found.softmax, found.result))
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
    kernel = AttentionKernel(
        ctx.strided(found.queries),
        keys,
        panels,
        after.shape[:-2],
        values.shape[-2],
        values.shape[-1],
        tiles,
        ctx.core,
        mask.apply,
        weigh.apply,
        after.into(out),
    )
    with ctx.kernel("attention") as k:
        kernel.emit(k)
    step = ctx.steps[-1]
    assert isinstance(step, Kernel)
    step.macs = kernel.macs


def _take_in(ctx: Lowering, node: ir.Node) -> Epilogue:
    """A later node that is computed here, with the elementwise operators that follow it."""
    ctx.done.add(node)
    ctx.layer += f"+{node.op_type}"
    return epilogue(ctx, node)

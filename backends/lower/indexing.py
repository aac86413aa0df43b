"""Operators that read or write at positions given by index tensors: the Gather and Scatter families, OneHot, Compress.

Indices are kept within bounds, negative ones counting from the end, so that no index can touch foreign memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator, Refused, attribute, constant_input, shape_of
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Index, Tensor, lazy

Combine = Callable[[Expr, Expr], Expr]

REDUCTIONS: dict[str, Combine] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": lambda old, new: tirx.op.max(old, new),
    "min": lambda old, new: tirx.op.min(old, new),
}
"""What a scattered element becomes, from the element there and the update."""


def wrap_index(k: KernelBuilder, index: Expr, extent: int) -> Expr:
    """A run-time index as int32, negative ones counted from the end, kept within bounds."""
    index = k.bind(cast(index, "int32"))
    wrapped = tirx.Select(index < 0, index + extent, index)
    return k.bind(tirx.op.max(const(0, "int32"), tirx.op.min(wrapped, const(max(extent - 1, 0), "int32"))))


def _cheap_input(ctx: Lowering, node: ir.Node, position: int) -> Tensor:
    value = node.inputs[position]
    assert value is not None
    return ctx.cheap(ctx.tensor(value))


def _gather(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x, indices = _cheap_input(ctx, node, 0), _cheap_input(ctx, node, 1)
    axis = attribute(node, "axis", 0) % x.rank
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    def read(k: KernelBuilder, index: Index) -> Expr:
        at = wrap_index(k, indices.read(k, index[axis : axis + indices.rank]), x.shape[axis])
        return x.read(k, [*index[:axis], at, *index[axis + indices.rank :]])

    return [lazy(shape, x.dtype, read, x.cost + 1)]


def _gather_elements(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x, indices = _cheap_input(ctx, node, 0), _cheap_input(ctx, node, 1)
    axis = attribute(node, "axis", 0) % x.rank

    def read(k: KernelBuilder, index: Index) -> Expr:
        source = list(index)
        source[axis] = wrap_index(k, indices.read(k, index), x.shape[axis])
        return x.read(k, source)

    return [lazy(indices.shape, x.dtype, read, x.cost + 2)]


def _gather_nd(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x, indices = _cheap_input(ctx, node, 0), _cheap_input(ctx, node, 1)
    batch = attribute(node, "batch_dims", 0)
    depth = indices.shape[-1]
    prefix = indices.rank - 1
    shape = (*indices.shape[:-1], *x.shape[batch + depth :])

    def read(k: KernelBuilder, index: Index) -> Expr:
        place = list(index[:prefix])
        at = [
            wrap_index(k, indices.read(k, [*place, const(i, "int32")]), x.shape[batch + i])
            for i in range(depth)
        ]
        return x.read(k, [*place[:batch], *at, *index[prefix:]])

    return [lazy(shape, x.dtype, read, x.cost + depth)]


def _scatter_elements(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Updates are applied in order, so that of several to one place the last holds, or all are reduced."""
    x, indices, updates = (_cheap_input(ctx, node, position) for position in range(3))
    axis = attribute(node, "axis", 0) % x.rank
    combine = REDUCTIONS[attribute(node, "reduction", "none")]
    out = _copied(ctx, node, x)
    with ctx.kernel("scatter") as k, k.loop(indices.size, "serial", "update") as update:
        index = [k.bind(i) for i in split_index(update, indices.shape)]
        place = list(index)
        place[axis] = wrap_index(k, indices.read(k, index), x.shape[axis])
        _apply(k, out, place, updates.read(k, index), combine)
    return [None]


def _scatter_nd(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Whole slices are written, one after the other."""
    x, indices, updates = (_cheap_input(ctx, node, position) for position in range(3))
    combine = REDUCTIONS[attribute(node, "reduction", "none")]
    depth = indices.shape[-1]
    tail = x.shape[depth:]
    out = _copied(ctx, node, x)
    with ctx.kernel("scatter") as k, k.loop(math.prod(indices.shape[:-1]), "serial", "slice") as number:
        prefix = [k.bind(i) for i in split_index(number, indices.shape[:-1])]
        place = [
            wrap_index(k, indices.read(k, [*prefix, const(i, "int32")]), x.shape[i]) for i in range(depth)
        ]
        with k.loop(math.prod(tail), "serial", "element") as element:
            inner = split_index(element, tail)
            _apply(k, out, [*place, *inner], updates.read(k, [*prefix, *inner]), combine)
    return [None]


def _tensor_scatter(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """TensorScatter: the update of every batch entry goes to its own position along `axis` of the cache."""
    x, updates = (_cheap_input(ctx, node, position) for position in range(2))
    starts = _cheap_input(ctx, node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    axis = attribute(node, "axis", -2) % x.rank
    circular = attribute(node, "mode", "linear") == "circular"
    out = _copied(ctx, node, x)
    with ctx.kernel("scatter") as k, k.loop(updates.size, "serial", "update") as update:
        index = [k.bind(i) for i in split_index(update, updates.shape)]
        place = list(index)
        start = const(0, "int32") if starts is None else cast(starts.read(k, [index[0]]), "int32")
        place[axis] = k.bind(start + index[axis])
        if circular:
            place[axis] = k.bind(tirx.op.floormod(place[axis], x.shape[axis]))
        with k.when(tirx.op.all(tirx.GE(place[axis], 0), tirx.LT(place[axis], x.shape[axis]))):
            _apply(k, out, place, updates.read(k, index), REDUCTIONS["none"])
    return [None]


def _copied(ctx: Lowering, node: ir.Node, x: Tensor) -> Tensor:
    """The node's output, holding the elements of `x` to begin with."""
    out = ctx.result(node.outputs[0], x.shape, x.dtype)
    ctx.copy(x, out)
    return out


def _apply(k: KernelBuilder, out: Tensor, place: Sequence[Expr], value: Expr, combine: Combine) -> None:
    storage = storage_of(out)
    k.store(storage.buffer, storage.layout.position(place), combine(out.reader(k, place), value))


def _one_hot(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """Indices outside [-depth, depth) give rows of the off value."""
    indices = _cheap_input(ctx, node, 0)
    values = ctx.tensor(node.inputs[2])  # type: ignore[arg-type]
    shape = shape_of(node.outputs[0])
    axis = attribute(node, "axis", -1) % len(shape)
    depth = const(shape[axis], "int64")

    def read(k: KernelBuilder, index: Index) -> Expr:
        hot = k.bind(cast(indices.read(k, [*index[:axis], *index[axis + 1 :]]), "int64"))
        position = tirx.Select(hot < const(0, "int64"), hot + depth, hot)
        off, on = (values.read(k, [const(i, "int32")]) for i in range(2))
        return tirx.Select(tirx.EQ(position, _as_int64(index[axis])), on, off)

    return [lazy(shape, values.dtype, read, indices.cost + 2)]


def _as_int64(index: Expr) -> Expr:
    return const(index, "int64") if isinstance(index, int) else cast(index, "int64")


def _compress(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The elements, or slices along `axis`, that a constant condition selects."""
    x = ctx.cheap(first_input(ctx, node))
    condition = constant_input(ctx, node, 1, "condition")
    axis = attribute(node, "axis")
    if axis is None:
        raise Refused("Compress of a flattened tensor is not supported; give it an axis")
    axis %= x.rank
    taken = ctx.constant(np.flatnonzero(condition).astype(np.int32))
    shape = (*x.shape[:axis], taken.size, *x.shape[axis + 1 :])

    def read(k: KernelBuilder, index: Index) -> Expr:
        return x.read(k, [*index[:axis], taken.read(k, [index[axis]]), *index[axis + 1 :]])

    return [lazy(shape, x.dtype, read, x.cost + 1)]


def _non_zero(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    found = np.array(np.nonzero(constant_input(ctx, node, 0, "operand, which decides the output's shape,")))
    return [ctx.constant(found.astype(np.int64))]


OPERATORS: dict[str, Operator] = {
    "Compress": Lowered(_compress),
    "Gather": Lowered(_gather),
    "GatherElements": Lowered(_gather_elements),
    "GatherND": Lowered(_gather_nd),
    "NonZero": Lowered(_non_zero),
    "OneHot": Lowered(_one_hot),
    "Scatter": Lowered(_scatter_elements),
    "ScatterElements": Lowered(_scatter_elements),
    "ScatterND": Lowered(_scatter_nd),
    "TensorScatter": Lowered(_tensor_scatter),
}

"""Pooling operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.codegen.power import c_pow
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.pool import AveragePoolKernel, MaxPoolKernel
from graphopt.backends.kernels.pool_general import GeneralPool, Store, covered, emit_max, emit_sum
from graphopt.backends.kernels.sliding import SlidingKernel
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.channels import channel_blocks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Lowered, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.views import first_input
from graphopt.backends.lower.windows import axes_of, end_pads, window
from graphopt.backends.tensor import Tensor


def lower_max_pool(ctx: Lowering, node: ir.Node) -> None:
    """MaxPool of any rank and type, with the positions of the maxima where they are asked for."""
    x, axes = _operands(ctx, node)
    positions = node.outputs[1] if len(node.outputs) > 1 else None
    if positions is not None and (positions.uses() or positions.is_graph_output()):
        _max_pool_with_positions(ctx, node, x, axes, positions)
    elif len(axes) > 2 or ctx.lanes == 1:
        x = ctx.in_memory(x)
        after, store = _destination(ctx, node, x.block)
        _emit_general(ctx, after, lambda k: emit_max(k, ctx.twin(GeneralPool)(x, axes), store, None, False))
    else:
        source, after, out = _blocked(ctx, node, x)
        _emit(ctx, after, MaxPoolKernel(window(axes), ctx.lanes, source, storage_of(out), epilogue=after))


def _max_pool_with_positions(
    ctx: Lowering, node: ir.Node, x: Tensor, axes: tuple[Axis, ...], positions: ir.Value
) -> None:
    x = ctx.in_memory(x)
    after, store = _destination(ctx, node)
    places = storage_of(ctx.result(positions, shape_of(positions), "int64"))
    column_major = bool(attribute(node, "storage_order", 0))

    def store_position(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
        k.store(places.buffer, places.layout.position(index), value)

    _emit_general(
        ctx, after, lambda k: emit_max(k, ctx.twin(GeneralPool)(x, axes), store, store_position, column_major)
    )


def lower_average_pool(ctx: Lowering, node: ir.Node) -> None:
    """AveragePool of any rank and type."""
    x, axes = _operands(ctx, node)
    include = bool(attribute(node, "count_include_pad", 0))
    ends = end_pads(node, axes)
    if len(axes) > 2 or ctx.lanes == 1 or accumulator_of(x.dtype) != x.dtype:
        _general_average(ctx, node, x, axes, ends if include else [None] * len(axes))
        return
    source, after, out = _blocked(ctx, node, x)
    kernel = AveragePoolKernel(
        window(axes),
        ctx.lanes,
        source,
        storage_of(out),
        epilogue=after,
        count_include_pad=include,
        ends=(0, ends[0]) if len(axes) == 1 else (ends[0], ends[1]),
    )
    _emit(ctx, after, kernel)


def _general_average(
    ctx: Lowering, node: ir.Node, x: Tensor, axes: tuple[Axis, ...], ends: Sequence[int | None]
) -> None:
    x, accumulator = ctx.in_memory(x), accumulator_of(x.dtype)

    def mean(total: Expr, index: Sequence[Expr]) -> Expr:
        counts = [covered(axis, i, end) for axis, i, end in zip(axes, index[2:], ends, strict=True)]
        return total / cast(math.prod(counts), accumulator)

    after, store = _destination(ctx, node, x.block)
    _emit_general(
        ctx,
        after,
        lambda k: emit_sum(k, ctx.twin(GeneralPool)(x, axes), accumulator, lambda v: v, mean, store),
    )


def lower_lp_pool(ctx: Lowering, node: ir.Node) -> None:
    """LpPool: the p-norm of the inputs under the window."""
    x, axes = _operands(ctx, node)
    _norm(ctx, node, x, axes)


def lower_global_lp_pool(ctx: Lowering, node: ir.Node) -> None:
    """GlobalLpPool: the p-norm over all spatial axes."""
    x = first_input(ctx, node)
    _norm(ctx, node, x, tuple(Axis(extent, 1, extent, 1, 0, 1) for extent in x.shape[2:]))


def _norm(ctx: Lowering, node: ir.Node, x: Tensor, axes: tuple[Axis, ...]) -> None:
    x, accumulator = ctx.in_memory(x), accumulator_of(x.dtype)
    before, root = _powers(float(attribute(node, "p", 2)), accumulator)
    after, store = _destination(ctx, node)
    pool = ctx.twin(GeneralPool)(x, axes)
    _emit_general(
        ctx, after, lambda k: emit_sum(k, pool, accumulator, before, lambda total, _: root(total), store)
    )


def _powers(p: float, dtype: str) -> tuple[Callable[[Expr], Expr], Callable[[Expr], Expr]]:
    """`|x| ** p` and its inverse."""
    if p == 1:
        return tirx.op.abs, lambda total: total
    if p == 2:
        return lambda x: x * x, tirx.op.sqrt
    return (
        lambda x: c_pow(tirx.op.abs(x), const(p, dtype)),
        lambda total: c_pow(total, const(1 / p, dtype)),
    )


def lower_max_unpool(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """MaxUnpool: zeros, with every input at the flat position of the output that its index names."""
    _require_inferred_shape(ctx, node)
    x, positions = (ctx.dense(ctx.tensor(value)) for value in node.inputs[:2] if value is not None)
    out = ctx.result(node.outputs[0], shape_of(node.outputs[0]), x.dtype)
    storage = storage_of(out)
    with ctx.kernel("max_unpool") as k:
        with k.loop(out.size, "serial", "i") as i:
            k.store(storage.buffer, i, const(0, x.dtype))
        with k.loop(x.size, "serial", "i") as i:
            position = k.bind(_flat(k, positions, i))
            with k.when(tirx.op.all(position >= 0, position < out.size)):
                k.store(storage.buffer, cast(position, "int32"), _flat(k, x, i))
    return [out]


def _require_inferred_shape(ctx: Lowering, node: ir.Node) -> None:
    """Indices count in the shape that pooling came from; implementations disagree on how another one is filled."""
    sizes, kernel = first_input(ctx, node).shape[2:], attribute(node, "kernel_shape")
    strides, pads = (
        attribute(node, "strides", [1] * len(sizes)),
        attribute(node, "pads", [0] * (2 * len(sizes))),
    )
    total = [before + after for before, after in zip(pads[: len(sizes)], pads[len(sizes) :], strict=True)]
    inferred = tuple(
        (size - 1) * stride + extent - pad
        for size, stride, extent, pad in zip(sizes, strides, kernel, total, strict=True)
    )
    if inferred != shape_of(node.outputs[0])[2:]:
        raise Refused(f"its output_shape differs from the inferred {inferred}")


def _flat(k: KernelBuilder, tensor: Tensor, position: Expr) -> Expr:
    """Element `position` of a dense tensor."""
    storage = storage_of(tensor)
    return k.load(storage.buffer, storage.layout.position([0] * tensor.rank) + position)


def _operands(ctx: Lowering, node: ir.Node) -> tuple[Tensor, tuple[Axis, ...]]:
    x = first_input(ctx, node)
    if x.rank < 3:
        raise Refused("its input has no spatial axes")
    axes = axes_of(node, x.shape[2:], shape_of(node.outputs[0])[2:], attribute(node, "kernel_shape"))
    if any((axis.output - 1) * axis.stride - axis.pad >= axis.input for axis in axes if axis.output):
        raise Refused("its last window starts beyond the input (ceil_mode)")
    return x, axes


def _blocked(ctx: Lowering, node: ir.Node, x: Tensor) -> tuple[Tensor, Epilogue, Tensor]:
    x = channel_blocks(ctx, x)
    after = epilogue(ctx, node, ctx.lanes)
    return x, after, ctx.result(after.value, after.shape, after.result.dtype, ctx.lanes)


def _destination(ctx: Lowering, node: ir.Node, block: int = 0) -> tuple[Epilogue, Store]:
    after = epilogue(ctx, node, block)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, block))
    return after, after.into(out)


def _emit_general(ctx: Lowering, after: Epilogue, emit: Callable[[KernelBuilder], None]) -> None:
    with ctx.kernel("pool") as k:
        if after.hole.size:
            emit(k)


def _emit(ctx: Lowering, after: Epilogue, kernel: SlidingKernel) -> None:
    _emit_general(ctx, after, kernel.emit)


OPERATORS: dict[str, Operator] = {
    "AveragePool": Anchor(lower_average_pool),
    "GlobalLpPool": Anchor(lower_global_lp_pool),
    "LpPool": Anchor(lower_lp_pool),
    "MaxPool": Anchor(lower_max_pool),
    "MaxUnpool": Lowered(lower_max_unpool),
}

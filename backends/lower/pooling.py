"""Pooling operators."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.pool import AveragePoolKernel, MaxPoolKernel
from graphopt.backends.kernels.sliding import SlidingKernel
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.windows import window_of
from graphopt.backends.tensor import Tensor


def lower_max_pool(ctx: Lowering, node: ir.Node) -> None:
    """MaxPool of one or two spatial axes, without the optional indices."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Refused("its Indices output is used")
    x, after, out = _prepare(ctx, node)
    window = window_of(node, x.shape[2:], after.shape[2:], attribute(node, "kernel_shape"))
    _emit(ctx, MaxPoolKernel(window, ctx.lanes, x, storage_of(out), epilogue=after))


def lower_average_pool(ctx: Lowering, node: ir.Node) -> None:
    """AveragePool of one or two spatial axes."""
    x, after, out = _prepare(ctx, node)
    rank = x.rank - 2
    window = window_of(node, x.shape[2:], after.shape[2:], attribute(node, "kernel_shape"))
    ends = list(attribute(node, "pads", [0] * (2 * rank)))[rank:]
    kernel = AveragePoolKernel(
        window,
        ctx.lanes,
        x,
        storage_of(out),
        epilogue=after,
        count_include_pad=bool(attribute(node, "count_include_pad", 0)),
        ends=(0, ends[0]) if rank == 1 else (ends[0], ends[1]),
    )
    _emit(ctx, kernel)


def _prepare(ctx: Lowering, node: ir.Node) -> tuple[Tensor, Epilogue, Tensor]:
    x = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    if x.rank not in (3, 4):
        raise Refused(f"{node.op_type} of rank {x.rank} is not supported")
    x = ctx.blocked(x)
    after = epilogue(ctx, node, ctx.lanes)
    return x, after, ctx.result(after.value, shape_of(node.outputs[0]), after.result.dtype, ctx.lanes)


def _emit(ctx: Lowering, kernel: SlidingKernel) -> None:
    with ctx.kernel("pool") as k:
        kernel.emit(k)


OPERATORS: dict[str, Operator] = {
    "MaxPool": Anchor(lower_max_pool),
    "AveragePool": Anchor(lower_average_pool),
}

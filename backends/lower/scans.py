"""CumSum and CumProd: running results along one axis, with lanes along the axes behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.reduce import accumulator_dtype
from graphopt.backends.kernels.rows import fill, vector_loop
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator, Refused, attribute, constant_input
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor

PARALLEL_ELEMENTS = 32768
"""Elements below which a scan stays on one thread."""

COMBINE: dict[str, tuple[int, Callable[[Expr, Expr], Expr]]] = {
    "CumProd": (1, lambda a, b: a * b),
    "CumSum": (0, lambda a, b: a + b),
}
"""The neutral number and the operation."""


def _scan(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    axes = constant_input(ctx, node, 1, "axis")
    if axes is None:
        raise Refused("it has no axis")
    x = ctx.dense(first_input(ctx, node))
    axis = int(axes.reshape(-1)[0]) % x.rank
    out = ctx.result(node.outputs[0], x.shape, x.dtype)
    if x.size:
        with ctx.kernel("scan") as k:
            _emit(k, node, x, out, axis, ctx.lanes)
    return [out]


def _emit(k: KernelBuilder, node: ir.Node, x: Tensor, out: Tensor, axis: int, lanes: int) -> None:
    """One loop over units of `width` neighbouring results each: vectors first, then what is left, one by one."""
    outer, behind = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    kind = loop_kind(x.size, PARALLEL_ELEMENTS)
    start = 0
    for width in (lanes, 1):
        tiles = (behind - start) // width
        if tiles:
            with k.loop(outer * tiles, kind, "unit") as unit:
                row, tile = tirx.op.floordiv(unit, tiles), tirx.op.floormod(unit, tiles)
                first = k.bind(row * (x.shape[axis] * behind) + start + tile * width)
                _run(k, node, x, out, first, (x.shape[axis], behind, width))
        start += tiles * width


def _run(
    k: KernelBuilder, node: ir.Node, x: Tensor, out: Tensor, first: Expr, size: tuple[int, int, int]
) -> None:
    """Scan `extent` elements `stride` apart, in `width` neighbouring columns at once."""
    extent, stride, width = size
    neutral, combine = COMBINE[node.op_type]
    backwards, exclusive = attribute(node, "reverse", 0), attribute(node, "exclusive", 0)
    dtype = accumulator_dtype(x.dtype)
    source, target = storage_of(x), storage_of(out)
    offset = source.layout.offset  # type: ignore[union-attr]
    total = k.local(width, dtype)
    fill(k, total, width, const(neutral, dtype))
    with k.loop(extent, "serial", "i") as i:
        place = extent - 1 - i if backwards else i
        at = k.bind(first + place * stride)

        def step(lane: Expr) -> None:
            value = cast(k.load(source.buffer, at + lane + offset), dtype)
            if exclusive:
                k.store(target.buffer, at + lane, cast(total[lane], x.dtype))
            k.assign(total, lane, combine(total[lane], value))
            if not exclusive:
                k.store(target.buffer, at + lane, cast(total[lane], x.dtype))

        vector_loop(k, width, step)


OPERATORS: dict[str, Operator] = dict.fromkeys(COMBINE, Lowered(_scan))

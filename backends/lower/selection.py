"""ArgMax, ArgMin and TopK."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.reduce import accumulator_dtype
from graphopt.backends.kernels.rows import vector_loop
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator, Refused, attribute, constant_input, shape_of
from graphopt.backends.lower.softmax import row_index
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Index, Tensor, unravel

PARALLEL_ELEMENTS = 32768
"""Elements below which a selection stays on one thread."""

Precedes = Callable[[Expr, Expr], Expr]

PRECEDES: dict[tuple[str, bool], Precedes] = {
    ("ArgMax", False): lambda value, best: value > best,
    ("ArgMax", True): lambda value, best: value >= best,
    ("ArgMin", False): lambda value, best: value < best,
    ("ArgMin", True): lambda value, best: value <= best,
}
"""When a later element takes the place of the best so far, by operator and `select_last_index`."""


def _argument(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """The position of the extreme along one axis; lanes are results where the last axis is kept."""
    x = ctx.in_memory(first_input(ctx, node))
    axis = attribute(node, "axis", 0) % max(x.rank, 1)
    precedes = PRECEDES[node.op_type, bool(attribute(node, "select_last_index", 0))]
    shape = shape_of(node.outputs[0])
    out = ctx.result(node.outputs[0], shape, "int64")
    if out.size == 0:
        return [out]
    if x.rank == 0 or x.shape[axis] == 0:
        raise Refused("it selects among no elements")
    kept = [extent for a, extent in enumerate(x.shape) if a != axis]
    last = kept[-1] if kept and axis != x.rank - 1 else 1
    outer = kept[:-1] if last > 1 else kept
    start = 0
    with ctx.kernel("arg") as k:
        for width in (ctx.lanes, 1):
            tiles = (last - start) // width
            if tiles:
                kind = loop_kind(x.size, PARALLEL_ELEMENTS)
                with k.loop(math.prod(outer) * tiles, kind, "unit") as unit:
                    *index, tile = unravel(k.bind(unit), [*outer, tiles])
                    first = k.bind(start + tile * width) if last > 1 else 0
                    place = [k.bind(i) for i in index]

                    def at(lane: Expr, place: list[Expr] = place, first: Expr = first) -> list[Expr]:
                        return [*place, first + lane] if last > 1 else place

                    _select(k, x, axis, width, at, out, precedes)
            start += tiles * width
    return [out]


def _select(
    k: KernelBuilder,
    x: Tensor,
    axis: int,
    width: int,
    at: Callable[[Expr], list[Expr]],
    out: Tensor,
    precedes: Precedes,
) -> None:
    dtype = accumulator_dtype(x.dtype)
    best, where = k.local(width, dtype), k.local(width, "int32")

    def element(i: Expr, lane: Expr) -> Expr:
        return cast(x.read(k, row_index(x.rank, [axis], at(lane), [i])), dtype)

    def begin(lane: Expr) -> None:
        k.assign(best, lane, element(0, lane))
        k.assign(where, lane, const(0, "int32"))

    vector_loop(k, width, begin)
    with k.loop(x.shape[axis] - 1, "serial", "i") as i:

        def step(lane: Expr) -> None:
            value = k.bind(element(i + 1, lane))
            better = precedes(value, best[lane])
            k.assign(where, lane, tirx.Select(better, i + 1, where[lane]))
            k.assign(best, lane, tirx.Select(precedes(value, best[lane]), value, best[lane]))

        vector_loop(k, width, step)
    storage = storage_of(out)
    keeps = len(out.shape) == x.rank

    def store(lane: Expr) -> None:
        kept = at(lane)
        index = [*kept[:axis], 0, *kept[axis:]] if keeps else kept
        k.store(storage.buffer, storage.layout.position(index), cast(where[lane], "int64"))

    vector_loop(k, width, store)


def _top_k(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """The k largest or smallest along one axis in order; of equal elements the first comes first."""
    x = ctx.in_memory(first_input(ctx, node))
    axis = attribute(node, "axis", -1) % max(x.rank, 1)
    count = _count(ctx, node)
    largest = bool(attribute(node, "largest", 1))
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    values = ctx.result(node.outputs[0], shape, x.dtype)
    places = ctx.result(node.outputs[1], shape, "int64")
    if values.size == 0:
        return [values, places]
    kept = [extent for a, extent in enumerate(x.shape) if a != axis]
    with ctx.kernel("topk") as k:
        kind = loop_kind(x.size, PARALLEL_ELEMENTS)
        with k.loop(math.prod(kept), kind, "row") as row:
            outer = [k.bind(i) for i in unravel(row, kept)]

            def index(i: Expr) -> Index:
                return row_index(x.rank, [axis], outer, [i])

            _insert_all(k, x, index, x.shape[axis], count, largest, values, places)
    return [values, places]


def _count(ctx: Lowering, node: ir.Node) -> int:
    given = attribute(node, "k")
    if given is None:
        given = constant_input(ctx, node, 1, "k").reshape(-1)[0]
    return int(given)


def _insert_all(
    k: KernelBuilder,
    x: Tensor,
    index: Callable[[Expr], Index],
    extent: int,
    count: int,
    largest: bool,
    values: Tensor,
    places: Tensor,
) -> None:
    """Keep the best so far sorted in the outputs; an element that beats the last moves the worse ones down."""
    best, where = storage_of(values), storage_of(places)
    dtype = x.dtype
    filled = k.local(1, "int32")
    k.assign(filled, 0, const(0, "int32"))

    def precedes(a: Expr, b: Expr) -> Expr:
        wide = accumulator_dtype(dtype)
        a, b = cast(a, wide), cast(b, wide)
        return a > b if largest else a < b

    def kept(i: Expr) -> Expr:
        return k.load(best.buffer, best.layout.position(index(i)))

    def put(i: Expr, value: Expr, place: Expr) -> None:
        at = index(i)
        k.store(best.buffer, best.layout.position(at), value)
        k.store(where.buffer, where.layout.position(at), place)

    with k.loop(extent, "serial", "i") as i:
        value = k.bind(x.read(k, index(i)))
        last = tirx.op.max(filled[0] - 1, const(0, "int32"))
        room = filled[0] < count
        with k.when(tirx.Or(room, precedes(value, kept(last)))):
            slot = k.local(1, "int32")
            k.assign(slot, 0, tirx.Select(room, filled[0], filled[0] - 1))
            k.assign(filled, 0, tirx.op.min(filled[0] + 1, const(count, "int32")))
            above = tirx.op.max(slot[0] - 1, const(0, "int32"))
            with k.repeat_while(tirx.And(slot[0] > 0, precedes(value, kept(above)))):
                put(slot[0], kept(above), k.load(where.buffer, where.layout.position(index(above))))
                k.assign(slot, 0, slot[0] - 1)
            put(slot[0], value, cast(i, "int64"))


OPERATORS: dict[str, Operator] = {
    "ArgMax": Lowered(_argument),
    "ArgMin": Lowered(_argument),
    "TopK": Lowered(_top_k),
}

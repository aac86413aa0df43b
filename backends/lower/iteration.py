"""The parts of a loop: values carried from one iteration to the next, and tensors written or read slice by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.rows import map_row
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Refused
from graphopt.backends.lower.views import reshape
from graphopt.backends.tensor import Index, Tensor, lazy


@dataclass(frozen=True)
class Cursor:
    """The position an iteration reads or writes at: its number, or counted from the end."""

    counter: Buffer
    trips: int
    backwards: bool = False

    def position(self, k: KernelBuilder) -> Expr:
        number = k.bind(cast(k.load(self.counter, 0), "int32"))
        return self.trips - 1 - number if self.backwards else number


def current_slice(source: Tensor, axis: int, cursor: Cursor) -> Tensor:
    """What the body of an iteration sees of `source`: its slice along `axis` at the cursor."""
    shape = (*source.shape[:axis], *source.shape[axis + 1 :])

    def read(k: KernelBuilder, index: Index) -> Expr:
        return source.read(k, [*index[:axis], cursor.position(k), *index[axis:]])

    return lazy(shape, source.dtype, read, source.cost)


def store_slice(ctx: Lowering, value: Tensor, target: Tensor, axis: int, cursor: Cursor) -> None:
    """Write `value` into the slice of `target` along `axis` at the cursor."""
    shape = (*target.shape[:axis], *target.shape[axis + 1 :])
    if (value.shape, value.dtype) != (shape, target.dtype):
        raise Refused(
            f"an iteration gives {value.dtype}{list(value.shape)} where {target.dtype}{list(shape)} is due"
        )
    value = ctx.dense(value)
    outer, inner = shape[:axis], shape[axis:]
    flat_source = reshape(value, (math.prod(outer), math.prod(inner)))
    out = storage_of(reshape(target, (math.prod(outer), target.shape[axis], math.prod(inner))))
    with ctx.kernel("slice") as k:
        position = cursor.position(k)
        with k.loop(math.prod(outer), "serial", "outer") as row:

            def move(e: Expr) -> None:
                k.store(out.buffer, out.layout.position([row, position, e]), flat_source.reader(k, [row, e]))

            map_row(k, math.prod(inner), ctx.lanes, move)


def carry(ctx: Lowering, states: Sequence[Tensor], following: Sequence[Tensor]) -> None:
    """At the end of an iteration, make `following` the values of `states`; every one is read before any is written."""
    for number, (state, value) in enumerate(zip(states, following, strict=True)):
        if (state.shape, state.dtype) != (value.shape, value.dtype):
            raise Refused(
                f"its carried value {number} goes from {state.dtype}{list(state.shape)}"
                f" to {value.dtype}{list(value.shape)} in an iteration"
            )
    buffers = {storage_of(state).buffer for state in states}
    moves = [(state, value) for state, value in zip(states, following, strict=True) if value is not state]
    ready = [
        (state, ctx.store(value) if value.is_lazy or _lies_in(value, buffers) else value)
        for state, value in moves
    ]
    for state, value in ready:
        ctx.copy(value, state)


def _lies_in(tensor: Tensor, buffers: set[Buffer]) -> bool:
    return tensor.storage is not None and tensor.storage.buffer in buffers

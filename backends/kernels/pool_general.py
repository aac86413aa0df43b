"""Pooling one output at a time: any rank, type and layout of the input, and results that are not only a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import row_major_strides
from graphopt.backends.tensor import Tensor

PARALLEL_TAPS = 50_000
"""Reads of the input below which a kernel stays on one thread."""

Store = Callable[[KernelBuilder, Sequence[Expr], Expr], None]
"""Stores a result, given its output index `[n, c, spatial...]`."""

Output = Callable[[KernelBuilder, Sequence[Expr]], None]
"""Computes the result at an output index."""


@dataclass(frozen=True)
class GeneralPool:
    """The loops: every output of `input [n, c, spatial...]`, then the taps of its window that exist."""

    input: Tensor
    axes: tuple[Axis, ...]

    def outputs(self, k: KernelBuilder, body: Output) -> None:
        """`body` for every output."""
        shape = [*self.input.shape[:2], *(axis.output for axis in self.axes)]
        taps = math.prod(shape) * math.prod(axis.kernel for axis in self.axes)
        kind = loop_kind(taps, PARALLEL_TAPS)
        with k.loop(math.prod(shape[:-1]), kind, "row") as row, k.loop(shape[-1], "serial", "x") as x:
            body(k, [*(k.bind(i) for i in split_index(row, shape[:-1])), x])

    @contextmanager
    def taps(self, k: KernelBuilder, index: Sequence[Expr]) -> Iterator[tuple[Expr, list[Expr]]]:
        """A loop over the window of an output; gives each input and its spatial index."""
        n, c, *place = index
        ranges = [axis.taps(i) for axis, i in zip(self.axes, place, strict=True)]
        ranges = [(k.bind(first), k.bind(count)) for first, count in ranges]
        with ExitStack() as loops:
            taps = [first + loops.enter_context(k.loop(count, "serial", "tap")) for first, count in ranges]
            source = [axis.source(i, tap) for axis, i, tap in zip(self.axes, place, taps, strict=True)]
            yield k.bind(self.input.reader(k, [n, c, *source])), source

    def largest(self, k: KernelBuilder, store: Store) -> bool:
        """Compute the largest inputs another way, if there is one for the kernel at hand."""
        return False

    def first_source(self, k: KernelBuilder, index: Sequence[Expr]) -> list[Expr]:
        """The spatial index of the first existing input of a window."""
        firsts = [axis.taps(i)[0] for axis, i in zip(self.axes, index[2:], strict=True)]
        return [axis.source(i, tap) for axis, i, tap in zip(self.axes, index[2:], firsts, strict=True)]


def emit_max(
    k: KernelBuilder, pool: GeneralPool, store: Store, store_position: Store | None, column_major: bool
) -> None:
    """The largest input; with `store_position` also where it lies in the flat input, spatial axes in either order."""
    if store_position is None and pool.largest(k, store):
        return
    dtype = pool.input.dtype
    lowest = -np.inf if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min
    spatial = [axis.input for axis in pool.axes]
    strides = row_major_strides(spatial[::-1])[::-1] if column_major else row_major_strides(spatial)

    def position(source: Sequence[Expr]) -> Expr:
        return cast(sum(i * stride for i, stride in zip(source, strides, strict=True)), "int32")

    def output(k: KernelBuilder, index: Sequence[Expr]) -> None:
        best, place = k.local(1, dtype), k.local(1, "int32")
        k.assign(best, 0, const(lowest, dtype))
        k.assign(place, 0, position(pool.first_source(k, index)))
        with pool.taps(k, index) as (value, source), k.when(value > best[0]):
            k.assign(best, 0, value)
            k.assign(place, 0, position(source))
        store(k, index, best[0])
        if store_position is not None:
            plane = (index[0] * pool.input.shape[1] + index[1]) * math.prod(spatial)
            store_position(k, index, cast(plane + place[0], "int64"))

    pool.outputs(k, output)


def emit_sum(
    k: KernelBuilder,
    pool: GeneralPool,
    accumulator: str,
    before: Callable[[Expr], Expr],
    after: Callable[[Expr, Sequence[Expr]], Expr],
    store: Store,
) -> None:
    """The sum of `before(input)`, then `after(sum, output index)`."""

    def output(k: KernelBuilder, index: Sequence[Expr]) -> None:
        total = k.local(1, accumulator)
        k.assign(total, 0, const(0, accumulator))
        with pool.taps(k, index) as (value, _):
            k.assign(total, 0, total[0] + before(cast(value, accumulator)))
        store(k, index, cast(after(total[0], index), pool.input.dtype))

    pool.outputs(k, output)


def covered(axis: Axis, position: Expr, end: int | None) -> Expr:
    """How many taps of a window count: those on inputs or, given the padding at the end, also those on padding."""
    if end is None:
        return axis.taps(position)[1]
    start = position * axis.stride - axis.pad
    fitting = tirx.op.floordiv(axis.input + end - 1 - start, axis.dilation) + 1
    return tirx.op.min(const(axis.kernel, "int32"), fitting)

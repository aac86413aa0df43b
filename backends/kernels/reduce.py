"""Reductions over any axes of a tensor in memory.

Lanes run along the axis whose elements lie next to each other. If it is kept, every lane is a result of its own and
nothing is added across lanes; if it is folded, partial results lie in lanes until the end of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, cast, const
from graphopt.backends.codegen.mathematics import HALF_PRECISION, exp
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.rows import MAXIMUM, Accumulator, Fold, fill, vector_loop
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.layout import Blocked, Strided
from graphopt.backends.tensor import Storage, Tensor, stored, strided_view, unravel

PARALLEL_ELEMENTS = 32768
"""Elements read below which a reduction stays on one thread."""

TILE = 4
"""Vectors of results computed side by side where lanes are results."""


@dataclass(frozen=True)
class Reduction:
    """`fold` over `before(x)`, then `after(total, count)`.

    With `exponentials` the elements are e**(x - peak), and the peak is added to the end result.
    """

    fold: Fold
    before: Callable[[Expr], Expr] = lambda x: x
    after: Callable[[KernelBuilder, Expr, int], Expr] = lambda k, total, count: total
    exponentials: bool = False


def accumulator_dtype(dtype: str) -> str:
    """The type in which elements are folded."""
    return "float32" if dtype in HALF_PRECISION else "uint8" if dtype == "bool" else dtype


def collapse(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, list[int]]:
    """A view of `x` in which folded axes that lie in one run of memory are one axis, and the folded axes of the view."""
    assert x.storage is not None
    layout = x.storage.layout
    if isinstance(layout, Blocked):
        spatial = list(range(2, x.rank))
        shape = (*x.shape[:2], math.prod(x.shape[2:]))
        flat = layout.with_pixels(shape)
        if flat is None or x.rank < 4 or not set(spatial) <= set(axes):
            return x, list(axes)
        view = stored(x.storage.buffer, shape, flat, x.dtype)
        return view, [axis for axis in axes if axis < 2] + [2]
    extents, strides, folded = _merged(x.shape, layout, set(axes))
    return strided_view(x, extents, strides, layout.offset), folded


def _merged(shape: Sequence[int], layout: Strided, axes: set[int]) -> tuple[list[int], list[int], list[int]]:
    extents: list[int] = []
    strides: list[int] = []
    folded: list[bool] = []
    for axis, (extent, stride) in enumerate(zip(shape, layout.strides, strict=True)):
        if folded and folded[-1] and axis in axes and strides[-1] == stride * extent:
            extents[-1] *= extent
            strides[-1] = stride
        else:
            extents.append(extent)
            strides.append(stride)
            folded.append(axis in axes)
    return extents, strides, [axis for axis, is_folded in enumerate(folded) if is_folded]


@dataclass(frozen=True)
class ReduceKernel:
    """Emits one reduction. `x` and `axes` are those of `collapse`; `count` is the number of elements of one result.

    `places` tells for each axis of the result which of the kept axes it is; None for those that keepdims leaves.
    """

    x: Tensor
    axes: Sequence[int]
    count: int
    reduction: Reduction
    lanes: int
    epilogue: Epilogue
    out: Storage
    places: Sequence[int | None]

    def emit(self, k: KernelBuilder) -> None:
        if self.x.size == 0:
            self._nothing(k)
            return
        axis = self._contiguous_axis()
        if axis is not None and axis not in self.axes and self.x.shape[axis] >= self.lanes:
            self._columns(k, axis)
        else:
            self._rows(k, axis if axis in self.axes else None)

    def _contiguous_axis(self) -> int | None:
        assert self.x.storage is not None
        layout = self.x.storage.layout
        if isinstance(layout, Blocked):
            return 1
        candidates = [a for a, stride in enumerate(layout.strides) if stride == 1 and self.x.shape[a] > 1]
        return candidates[-1] if candidates else None

    @property
    def _kind(self) -> str:
        return loop_kind(self.x.size, PARALLEL_ELEMENTS)

    def _kept(self, without: int | None = None) -> list[int]:
        return [a for a in range(self.x.rank) if a not in self.axes and a != without]

    def _nothing(self, k: KernelBuilder) -> None:
        """Results over no elements at all."""
        shape, dtype = self.epilogue.shape, accumulator_dtype(self.x.dtype)
        if math.prod(shape) == 0:
            return
        with k.loop(math.prod(shape), "serial", "row") as row:
            result = self._finish(k, k.bind(const(self.reduction.fold.initial(dtype), dtype)), None)
            self._put(k, unravel(row, shape), result)

    # Lanes along a kept axis

    def _columns(self, k: KernelBuilder, axis: int) -> None:
        extent, start = self.x.shape[axis], 0
        for width, lanes in ((TILE, self.lanes), (1, self.lanes), (1, 1)):
            count = (extent - start) // (width * lanes)
            if count:
                self._section(k, axis, start, count, width, lanes)
            start += count * width * lanes

    def _section(self, k: KernelBuilder, axis: int, start: int, count: int, width: int, lanes: int) -> None:
        kept = self._kept(axis)
        with k.loop(math.prod(self.x.shape[a] for a in kept) * count, self._kind, "unit") as unit:
            row = unit if count == 1 else tirx.op.floordiv(unit, count)
            tile = 0 if count == 1 else tirx.op.floormod(unit, count)
            index = dict(zip(kept, unravel(k.bind(row), [self.x.shape[a] for a in kept]), strict=True))
            first = k.bind(start + tile * (width * lanes))
            self._tile(k, index, axis, first, width, lanes)

    def _tile(
        self, k: KernelBuilder, index: dict[int, Expr], axis: int, first: Expr, width: int, lanes: int
    ) -> None:
        def value(position: Expr, inner: dict[int, Expr]) -> Expr:
            return self._read(k, {**index, **inner, axis: first + position})

        peak: Local | None = None
        if self.reduction.exponentials:
            peak = self._fold_tile(k, MAXIMUM, width, lanes, value)
        total = self._fold_tile(
            k,
            self.reduction.fold,
            width,
            lanes,
            lambda p, inner: self._element(k, value(p, inner), None if peak is None else peak[p]),
        )
        for w in range(width):

            def store(lane: Expr, w: int = w) -> None:
                at = w * lanes + lane
                result = self._finish(k, total[at], None if peak is None else peak[at])
                self._store(k, {**index, axis: first + at}, result)

            vector_loop(k, lanes, store)

    def _fold_tile(
        self,
        k: KernelBuilder,
        fold: Fold,
        width: int,
        lanes: int,
        element: Callable[[Expr, dict[int, Expr]], Expr],
    ) -> Local:
        dtype = accumulator_dtype(self.x.dtype)
        total = k.local(width * lanes, dtype)
        fill(k, total, width * lanes, const(fold.initial(dtype), dtype))
        with self._folded_loops(k, self.axes) as inner:
            for w in range(width):

                def step(lane: Expr, w: int = w) -> None:
                    at = w * lanes + lane
                    k.assign(total, at, fold.combine(total[at], element(at, inner)))

                vector_loop(k, lanes, step)
        return total

    # Lanes along a folded axis

    def _rows(self, k: KernelBuilder, axis: int | None) -> None:
        kept = self._kept()
        shape = [self.x.shape[a] for a in kept]
        with k.loop(math.prod(shape), self._kind, "row") as row:
            index = dict(zip(kept, (k.bind(i) for i in unravel(row, shape)), strict=True))
            peak = self._fold_row(k, MAXIMUM, axis, index, None) if self.reduction.exponentials else None
            total = self._fold_row(k, self.reduction.fold, axis, index, peak)
            self._store(k, index, self._finish(k, total, peak))

    def _fold_row(
        self, k: KernelBuilder, fold: Fold, axis: int | None, index: dict[int, Expr], peak: Expr | None
    ) -> Expr:
        lanes = 1 if axis is None else self.lanes
        inner_axis = self.axes[-1] if axis is None and self.axes else axis
        extent = 1 if inner_axis is None else self.x.shape[inner_axis]
        is_peak = self.reduction.exponentials and peak is None
        accumulator = Accumulator(k, fold, accumulator_dtype(self.x.dtype), lanes, extent)
        with self._folded_loops(k, [a for a in self.axes if a != inner_axis]) as outer:

            def element(position: Expr) -> Expr:
                at = {} if inner_axis is None else {inner_axis: position}
                value = self._read(k, {**index, **outer, **at})
                return value if is_peak else self._element(k, value, peak)

            accumulator.add(extent, element)
        return accumulator.total()

    # Shared

    @contextmanager
    def _folded_loops(self, k: KernelBuilder, axes: Sequence[int]) -> Iterator[dict[int, Expr]]:
        with ExitStack() as stack:
            yield {a: stack.enter_context(k.loop(self.x.shape[a], "serial", "f")) for a in axes}

    def _read(self, k: KernelBuilder, index: dict[int, Expr]) -> Expr:
        value = self.x.read(k, [index[a] for a in range(self.x.rank)])
        return cast(value, accumulator_dtype(self.x.dtype))

    def _element(self, k: KernelBuilder, value: Expr, peak: Expr | None) -> Expr:
        return self.reduction.before(value) if peak is None else exp(k, value - _finite(peak))

    def _finish(self, k: KernelBuilder, total: Expr, peak: Expr | None) -> Expr:
        result = self.reduction.after(k, total, self.count)
        return result if peak is None else result + _finite(peak)

    def _store(self, k: KernelBuilder, index: dict[int, Expr], value: Expr) -> None:
        kept = [index[a] for a in self._kept()]
        self._put(k, [0 if place is None else kept[place] for place in self.places], value)

    def _put(self, k: KernelBuilder, at: Sequence[Expr], value: Expr) -> None:
        if self.x.dtype == "bool":
            value = tirx.NE(value, const(0, "uint8"))
        self.epilogue.store(k, self.out, at, cast(value, self.x.dtype))


def _finite(peak: Expr) -> Expr:
    """The peak, or 0 where it is infinite: infinity minus infinity would be NaN."""
    dtype = str(peak.ty.dtype)
    bound = const(3.0e38, dtype)
    inside = tirx.And(peak < bound, peak > const(-3.0e38, dtype))
    return tirx.Select(inside, peak, const(0.0, dtype))

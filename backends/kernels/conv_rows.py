"""Convolution with lanes along the last spatial axis: any rank, type and number of groups, weights read in place.

Suits few output channels, groups that do not fill vectors, and weights computed at run time. A tile of filters x vectors
of output columns stays in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, cast
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import (
    PARALLEL_MACS,
    Segment,
    Store,
    choose_tile,
    for_each_segment,
    segments,
)
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.row_source import RowSource
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.tensor import Tensor

Weight = Callable[[KernelBuilder, Expr, Expr, Sequence[Expr]], Expr]
"""The weight of an output channel, a channel within its group, and a tap on every axis."""


@dataclass(frozen=True)
class Geometry:
    """`channels` and `filters` are those of one group; `axes` the spatial ones."""

    batch: int
    groups: int
    channels: int
    filters: int
    axes: tuple[Axis, ...]

    @property
    def depth(self) -> int:
        """Multiply-adds of one output."""
        return self.channels * math.prod(axis.kernel for axis in self.axes)

    @property
    def macs(self) -> int:
        outputs = math.prod(axis.output for axis in self.axes)
        return self.batch * self.groups * self.filters * outputs * self.depth


@dataclass(frozen=True)
class RowsKernel:
    """Emits one convolution; `store` gets the index `[n, output channel, spatial...]` of each result."""

    geometry: Geometry
    source: RowSource
    weight: Weight
    bias: Tensor | None
    core: Core
    accumulator: str
    store: Store

    @property
    def lanes(self) -> int:
        return self.core.lanes

    @property
    def row(self) -> Axis:
        return self.geometry.axes[-1]

    def emit(self, k: KernelBuilder) -> None:
        geometry = self.geometry
        tile = choose_tile(geometry.filters, self.row.output, geometry.depth, self.core)
        filters = segments(geometry.filters, tile.rows)
        columns = segments(self.row.output, tile.vectors * self.lanes)
        outer = [axis.output for axis in geometry.axes[:-1]]
        counts = [sum(part.repeat for part in parts) for parts in (filters, columns)]
        units = [geometry.batch, geometry.groups, counts[0], *outer, counts[1]]
        kind = loop_kind(geometry.macs, PARALLEL_MACS)
        with k.loop(math.prod(units), kind, "unit") as unit:
            n, group, filter_tile, *place, column = (k.bind(index) for index in split_index(unit, units))

            def tile_of(f: Segment, first: Expr, c: Segment, x: Expr) -> None:
                self._tile(k, n, group, k.bind(group * geometry.filters + first), f.extent, place, c, x)

            def row_of(f: Segment, first: Expr) -> None:
                for_each_segment(k, columns, column, lambda c, x: tile_of(f, first, c, x))

            for_each_segment(k, filters, filter_tile, row_of)

    def _tile(
        self,
        k: KernelBuilder,
        n: Expr,
        group: Expr,
        first: Expr,
        filters: int,
        place: list[Expr],
        c: Segment,
        x: Expr,
    ) -> None:
        """One tile; the last one of a row moves left so that its vectors are whole."""
        width = min(self.lanes, self.row.output)
        vectors = -(-c.extent // width)
        if vectors * width != c.extent:
            x = max(self.row.output - vectors * width, 0)
        vectors = min(vectors, -(-self.row.output // width))
        starts = [min(v * width, self.row.output - width) for v in range(vectors)]
        sums = k.local(filters * vectors * self.lanes, self.accumulator)
        self._initialise(k, sums, first, filters, vectors)
        for channel, taps in self._window(k, place):
            sources = [
                axis.source(i, tap) for axis, i, tap in zip(self.geometry.axes, place, taps, strict=False)
            ]
            inputs = [
                self.source.load(
                    k, n, group * self.geometry.channels + channel, sources, taps[-1], x + start, width
                )
                for start in starts
            ]
            vectors_in = [k.bind(cast(value, self._vector(width))) for value in inputs]
            for f in range(filters):
                weight = cast(self.weight(k, first + f, channel, taps), self.accumulator)
                factor = k.bind(tirx.Broadcast(weight, width) if width > 1 else weight)
                for v, value in enumerate(vectors_in):
                    at = (f * vectors + v) * self.lanes
                    k.assign(sums, at, k.read_vector(sums, at, width) + factor * value, width)
        for f in range(filters):
            for v, start in enumerate(starts):
                with k.loop(width, "vector" if width > 1 else "serial", "lane") as lane:
                    value = sums[lane + (f * vectors + v) * self.lanes]
                    self.store(k, [n, first + f, *place, x + start + lane], value)

    def _vector(self, width: int) -> str:
        return self.accumulator if width == 1 else f"{self.accumulator}x{width}"

    def _initialise(self, k: KernelBuilder, sums: Local, first: Expr, filters: int, vectors: int) -> None:
        for f in range(filters):
            value = tirx.const(0, self.accumulator)
            if self.bias is not None:
                value = k.bind(cast(self.bias.reader(k, [first + f]), self.accumulator))
            for v in range(vectors):
                k.assign(sums, (f * vectors + v) * self.lanes, tirx.Broadcast(value, self.lanes), self.lanes)

    def _window(self, k: KernelBuilder, place: Sequence[Expr]) -> Iterator[tuple[Expr, list[Expr]]]:
        """Loops over the channels of a group and the taps whose rows exist."""
        *outer, row = self.geometry.axes
        with ExitStack() as loops:
            ranges = [axis.taps(i) for axis, i in zip(outer, place, strict=True)]
            ranges = [(k.bind(first), k.bind(count)) for first, count in ranges]
            channel = loops.enter_context(k.loop(self.geometry.channels, "serial", "channel"))
            taps = [first + loops.enter_context(k.loop(count, "serial", "tap")) for first, count in ranges]
            yield channel, [*taps, loops.enter_context(k.loop(row.kernel, "serial", "tap"))]

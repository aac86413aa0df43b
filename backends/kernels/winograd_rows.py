"""3x3 convolution of stride 1 with lanes along rows, by minimal filtering along columns: F(4, 3) takes 6 products where 12 were.

For few output channels, of which no vector is full. Neighbours along a row stay neighbours, so that nothing is shuffled: a strip
of output rows needs the rows that it reads combined, which a thread keeps in its first-level cache, padded on both sides, and
multiplies by weights that were combined before. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.combine import combine
from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import (
    PARALLEL_MACS,
    Segment,
    Store,
    choose_tile,
    for_each_segment,
    segments,
)
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.kernels.winograd import winograd_applies
from graphopt.backends.kernels.winograd_transforms import TAPS, Transforms, transforms
from graphopt.backends.tensor import Storage

SIDE = 4
"""Rows of a strip."""

MOST_BYTES = 40 << 10
"""Of the combined rows of a strip: what a first-level cache holds beside weights."""

INPUT_TRANSFORM, OUTPUT_TRANSFORM = 14.0, 12.0
"""Cycles a vector, channel and strip; by Zen 5's ports."""


@dataclass(frozen=True)
class RowWinogradShape:
    """The convolution, and the core it is for."""

    conv: ConvShape
    core: Core

    @property
    def transforms(self) -> Transforms:
        return transforms(SIDE)

    @property
    def strips(self) -> int:
        return -(-self.conv.window.output[0] // SIDE)

    @property
    def length(self) -> int:
        """Elements of a padded row."""
        return self.conv.window.output[1] + TAPS - 1

    @property
    def scratch_size(self) -> int:
        """Elements of the combined rows of a strip, `[channel, point, column]`."""
        return self.conv.channels * self.transforms.points * self.length

    def row_start(self, channel: Expr, point: Expr) -> Expr:
        """Where a combined row begins."""
        return (channel * self.transforms.points + point) * self.length


def row_winograd_pays(shape: RowWinogradShape) -> bool:
    """Whether the kernel can compute the convolution, and takes fewer estimated cycles than the direct one along rows."""
    conv, lanes = shape.conv, shape.core.lanes
    if not winograd_applies(conv) or min(conv.window.input[1], conv.window.output[1]) < lanes:
        return False
    if 4 * shape.scratch_size > MOST_BYTES:
        return False
    products = conv.channels * conv.filters * TAPS / 2
    direct = products * TAPS * conv.window.output[0] / shape.strips
    moving = INPUT_TRANSFORM * conv.channels + OUTPUT_TRANSFORM * conv.filters
    return products * shape.transforms.points + moving < direct


def pack_row_winograd(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`[filters, channels, 3, 3]` as `[point, channel, column tap, filter]`, flat; computed in float64."""
    combined = np.einsum("ij,fcjx->icxf", transforms(SIDE).weights, weights.astype(np.float64))
    return np.ascontiguousarray(combined).reshape(-1).astype(np.float32)


@dataclass(frozen=True)
class RowWinogradKernel:
    """Emits one convolution; `store` gets the index `[n, output channel, row, column]` of each result. `source` has neighbouring
    columns next to each other; `weights` are packed by `pack_row_winograd`."""

    shape: RowWinogradShape
    source: Storage
    weights: Buffer
    bias: Buffer | None
    store: Store

    @property
    def lanes(self) -> int:
        return self.shape.core.lanes

    def emit(self, k: KernelBuilder) -> None:
        conv = self.shape.conv
        tile = choose_tile(conv.filters, conv.window.output[1], conv.channels * TAPS, self.shape.core)
        filters = segments(conv.filters, tile.rows)
        columns = segments(conv.window.output[1], tile.vectors * self.lanes)
        counts = [sum(part.repeat for part in parts) for parts in (filters, columns)]
        units = [conv.batch, self.shape.strips]
        with k.loop(units[0] * units[1], loop_kind(conv.macs, PARALLEL_MACS), "strip") as unit:
            n, strip = (k.bind(index) for index in split_index(unit, units))
            y = k.bind(strip * SIDE)
            rows = k.local(self.shape.scratch_size, "float32")
            with k.loop(conv.channels, "serial", "channel") as channel:
                self._transform(k, rows, n, channel, y)
            with k.loop(counts[0], "serial", "filters") as f, k.loop(counts[1], "serial", "columns") as c:

                def tile_of(f: Segment, first: Expr, c: Segment, x: Expr) -> None:
                    self._tile(k, rows, n, k.bind(first), f.extent, y, c, x)

                def row_of(f: Segment, first: Expr) -> None:
                    for_each_segment(k, columns, c, partial(tile_of, f, first))

                for_each_segment(k, filters, f, row_of)

    def _transform(self, k: KernelBuilder, rows: Local, n: Expr, channel: Expr, y: Expr) -> None:
        """Combine the input rows of a strip into its points, with zeros on both sides."""
        shape, lanes, row = self.shape, self.lanes, self.shape.conv.window.axes[1]
        points = shape.transforms.points
        for point in range(points):
            start = k.bind(shape.row_start(channel, point))
            for column in [*range(row.pad), *range(row.pad + row.input, shape.length)]:
                k.assign(rows, start + column, const(0.0, "float32"))

        def vector(x: Expr) -> None:
            data = [self._load(k, n, channel, y, i, x) for i in range(points)]
            for point, value in enumerate(combine(k, shape.transforms.input, data, lanes)):
                k.assign(rows, shape.row_start(channel, point) + row.pad + x, value, lanes)

        whole, rest = divmod(row.input, lanes)
        with k.loop(whole, "serial", "vector") as position:
            vector(k.bind(position * lanes))
        if rest:
            vector(row.input - lanes)

    def _load(self, k: KernelBuilder, n: Expr, channel: Expr, y: Expr, tap: int, x: Expr) -> Expr:
        """A vector of the input row that is `tap` rows below the first that the strip at `y` reads; zeros outside of the image."""
        column, lanes = self.shape.conv.window.axes[0], self.lanes
        row = y + (tap - column.pad)
        last = (self.shape.strips - 1) * SIDE + tap - column.pad
        conditions = [
            *([row >= 0] if tap < column.pad else []),
            *([row < column.input] if last >= column.input else []),
        ]
        at = self.source.layout.position([n, channel, row, x])
        if not conditions:
            return k.bind(k.load_vector(self.source.buffer, at, lanes))
        zero = tirx.Broadcast(const(0.0, "float32"), lanes)
        return k.bind(
            k.guard(tirx.op.all(*conditions), lambda: k.load_vector(self.source.buffer, at, lanes), zero)
        )

    def _tile(
        self,
        k: KernelBuilder,
        rows: Local,
        n: Expr,
        first: Expr,
        filters: int,
        y: Expr,
        c: Segment,
        x: Expr,
    ) -> None:
        """Some filters of a strip; the last tile of a row moves left so that its vectors are whole."""
        shape, lanes, width = self.shape, self.lanes, self.shape.conv.window.output[1]
        vectors = -(-c.extent // lanes)
        if vectors * lanes != c.extent:
            x = max(width - vectors * lanes, 0)
        starts = [min(v * lanes, width - lanes) for v in range(vectors)]
        size = filters * vectors * lanes
        products = k.local(shape.transforms.points * size, "float32")
        with k.loop(shape.transforms.points, "serial", "point") as point:
            sums = k.local(size, "float32")
            for at in range(0, size, lanes):
                k.assign(sums, at, tirx.Broadcast(const(0.0, "float32"), lanes), lanes)
            self._multiply(k, rows, sums, point, first, filters, [x + start for start in starts])
            for at in range(0, size, lanes):
                k.assign(products, point * size + at, k.read_vector(sums, at, lanes), lanes)
        for f in range(filters):
            bias = const(0.0, "float32") if self.bias is None else k.load(self.bias, first + f)
            bias = k.bind(tirx.Broadcast(bias, lanes))
            for v, start in enumerate(starts):
                places = [(point * filters + f) * vectors + v for point in range(shape.transforms.points)]
                data = [k.bind(k.read_vector(products, at * lanes, lanes)) for at in places]
                self._store(k, [value + bias for value in self._results(k, data)], n, first + f, y, x + start)

    def _multiply(
        self,
        k: KernelBuilder,
        rows: Local,
        sums: Local,
        point: Expr,
        first: Expr,
        filters: int,
        columns: Sequence[Expr],
    ) -> None:
        """Add up the products of one point over channels and the taps along the row."""
        shape, lanes = self.shape, self.lanes
        with (
            k.loop(shape.conv.channels, "serial", "channel") as channel,
            k.loop(TAPS, "serial", "tap") as tap,
        ):
            start = k.bind(shape.row_start(channel, point) + tap)
            data = [k.bind(k.read_vector(rows, start + x, lanes)) for x in columns]
            weight = k.bind(((point * shape.conv.channels + channel) * TAPS + tap) * shape.conv.filters)
            for f in range(filters):
                factor = k.bind(tirx.Broadcast(k.load(self.weights, weight + first + f), lanes))
                for v, value in enumerate(data):
                    at = (f * len(data) + v) * lanes
                    k.assign(sums, at, k.read_vector(sums, at, lanes) + factor * value, lanes)

    def _results(self, k: KernelBuilder, products: Sequence[Expr]) -> list[Expr]:
        return combine(k, self.shape.transforms.output, products, self.lanes)

    def _store(
        self, k: KernelBuilder, results: Sequence[Expr], n: Expr, filter_: Expr, y: Expr, x: Expr
    ) -> None:
        """Store one vector of every row of the strip that lies within the image."""
        height, lanes = self.shape.conv.window.output[0], self.lanes
        for i, result in enumerate(results):
            held = k.local(lanes, "float32")
            k.assign(held, 0, result, lanes)
            inside = height % SIDE == 0 or y + i < height
            with k.when(inside), k.loop(lanes, "vector", "lane") as lane:
                self.store(k, [n, filter_, y + i, x + lane], held[lane])

"""Convolution of small integers with exact sums, and a plain version for weights that are known only at run time.

The input holds `x - zero_point` in the accumulator's own dtype, so that padding is zero and a scalar can be broadcast
straight from memory. Sums are int32, or float32 where the caller has shown that they stay below 2**24.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, cast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.conv import ConvShape, ConvTile
from graphopt.backends.kernels.sliding import SlidingKernel
from graphopt.backends.kernels.window import Tiles, Window, for_each_tile, row_tiles, split_index, tile_count
from graphopt.backends.tensor import Tensor

PARALLEL_MACS = 200_000
"""Multiply-adds below which a convolution stays on one thread."""

Store = Callable[[KernelBuilder, Sequence[Expr], Expr], None]
"""Stores a sum, given its logical output index."""


@dataclass(frozen=True)
class IntegerConvKernel:
    """Direct convolution with vectors along the output channels. `weights` are packed by `conv.pack_weights`.

    Every group has a whole number of vectors of filters, or there is only one group. `spatial` is the extent of the
    output image, also where `shape` sees it flattened to one row.
    """

    shape: ConvShape
    tile: ConvTile
    lanes: int
    input: Tensor
    weights: Buffer
    spatial: tuple[int, ...]
    store: Store

    @property
    def dtype(self) -> str:
        return self.weights.dtype

    def emit(self, k: KernelBuilder) -> None:
        shape, tile = self.shape, self.tile
        filter_tiles = -(-shape.filters // (tile.blocks * self.lanes))
        tiles = row_tiles(shape.window, tile.pixels)
        units = [shape.batch, shape.groups, filter_tiles, shape.window.output[0], tile_count(tiles)]
        kind = "parallel" if shape.macs >= PARALLEL_MACS else "serial"
        with k.loop(math.prod(units), kind, "unit") as unit:
            n, group, filter_tile, y, t = (k.bind(index) for index in split_index(unit, units))
            for_each_tile(k, tiles, t, lambda run, x: self._tile(k, run, (n, group, filter_tile), y, x))

    def _tile(self, k: KernelBuilder, run: Tiles, place: tuple[Expr, Expr, Expr], y: Expr, x: Expr) -> None:
        n, group, filter_tile = place
        sums = k.local(self.tile.blocks * run.width * self.lanes, self.dtype)
        zero = tirx.Broadcast(const(0, self.dtype), self.lanes)
        for vector in range(self.tile.blocks * run.width):
            k.assign(sums, vector * self.lanes, zero, self.lanes)
        self._accumulate(k, sums, run, place, y, x)
        for block in range(self.tile.blocks):
            first = group * self.shape.filters + (filter_tile * self.tile.blocks + block) * self.lanes
            for pixel in range(run.width):
                at = (block * run.width + pixel) * self.lanes
                with k.loop(self.lanes, "vector", "lane") as lane:
                    index = [
                        n,
                        first + lane,
                        *unflattened(y, x + pixel, self.shape.window.output, self.spatial),
                    ]
                    self.store(k, index, cast(sums[lane + at], "int32"))

    def _accumulate(
        self, k: KernelBuilder, sums: Local, run: Tiles, place: tuple[Expr, Expr, Expr], y: Expr, x: Expr
    ) -> None:
        window = self.shape.window
        first, count = window.row_range(y)
        full, rest = divmod(self.shape.channels, self.lanes)
        blocks = [(0, full, self.lanes), (full, 1, rest)]
        for start, repeat, channels in (b for b in blocks if b[1] and b[2]):
            with k.loop(repeat, "serial", "block") as block, k.loop(count, "serial", "ky") as row:
                for kx in range(window.kernel[1]):
                    columns = [
                        i for i in range(run.width) if run.interior or window.has_column(run.start + i, kx)
                    ]
                    if not columns:
                        continue
                    with k.loop(channels, "serial", "channel") as lane:
                        tap = (block + start, lane, first + row, kx)
                        self._multiply(k, sums, run, place, (y, x), tap, columns)

    def _multiply(
        self,
        k: KernelBuilder,
        sums: Local,
        run: Tiles,
        place: tuple[Expr, Expr, Expr],
        at: tuple[Expr, Expr],
        tap: tuple[Expr, Expr, Expr, int],
        columns: Sequence[int],
    ) -> None:
        n, group, _ = place
        block, lane, ky, kx = tap
        window = self.shape.window
        weights = self._weights(k, place, tap)
        channel = group * self.shape.channels + block * self.lanes + lane
        for pixel in columns:
            row, column = window.row(at[0], ky), window.column(at[1] + pixel, kx)
            index = [n, channel, *unflattened(row, column, window.input, self.input.shape[2:])]
            scalar = tirx.Broadcast(self.input.reader(k, index), self.lanes)
            for b, weight in enumerate(weights):
                position = (b * run.width + pixel) * self.lanes
                total = k.read_vector(sums, position, self.lanes) + scalar * weight
                k.assign(sums, position, total, self.lanes)

    def _weights(
        self, k: KernelBuilder, place: tuple[Expr, Expr, Expr], tap: tuple[Expr, Expr, Expr, int]
    ) -> list[Expr]:
        _, group, filter_tile = place
        block, lane, ky, kx = tap
        kernel, lanes, blocks = self.shape.window.kernel, self.lanes, self.tile.blocks
        row: Expr = group * -(-self.shape.filters // (blocks * lanes)) + filter_tile
        row = row * -(-self.shape.channels // lanes) + block
        row = ((row * kernel[0] + ky) * kernel[1] + kx) * lanes + lane
        return [k.bind(k.load_vector(self.weights, (row * blocks + b) * lanes, lanes)) for b in range(blocks)]


@dataclass(frozen=True)
class IntegerDepthwiseKernel(SlidingKernel):
    """One filter a channel. `weights` are packed by `pack_depthwise`; the input is blocked."""

    weights: Buffer
    store: Store

    def initial(self, k: KernelBuilder, block: Expr) -> Expr:
        return tirx.Broadcast(const(0, self.weights.dtype), self.lanes)

    def tap(self, k: KernelBuilder, block: Expr, ky: Expr, kx: Expr) -> Expr:
        height, width = self.window.kernel
        return k.bind(
            k.load_vector(self.weights, ((block * height + ky) * width + kx) * self.lanes, self.lanes)
        )

    def combine(self, accumulator: Expr, value: Expr, weight: Expr) -> Expr:
        return accumulator + value * weight

    def finish(
        self, k: KernelBuilder, accumulators: Local, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr
    ) -> None:
        for pixel in range(run.width):
            with k.loop(self.lanes, "vector", "lane") as lane:
                index = self.index(n, block * self.lanes + lane, y, x + pixel)
                self.store(k, index, cast(accumulators[pixel * self.lanes + lane], "int32"))


def unflattened(y: Expr, x: Expr, window: tuple[int, int], spatial: Sequence[int]) -> list[Expr]:
    """The spatial index of row `y`, column `x` of a window, which may see an image as one row."""
    if len(spatial) == 1:
        return [x]
    if window[0] == 1 and spatial[0] != 1:
        return [tirx.op.floordiv(x, spatial[1]), tirx.op.floormod(x, spatial[1])]
    return [y, x]


def emit_plain_conv(
    k: KernelBuilder,
    out: Sequence[int],
    window: Window,
    x: Tensor,
    weights: Tensor,
    groups: int,
    store: Store,
) -> None:
    """One output element after the other; `x` and `weights` are int32 `[n, c, h, w]` without their zero points."""
    filters, channels = weights.shape[0] // groups, weights.shape[1]
    kh, kw = window.kernel
    with k.loop(math.prod(out), "parallel", "element") as element:
        n, filter_, y, column = (k.bind(i) for i in split_index(element, out))
        total = k.local(1, "int32")
        k.assign(total, 0, const(0, "int32"))
        with k.loop(channels * kh * kw, "serial", "tap") as tap:
            channel, ky, kx = split_index(tap, (channels, kh, kw))
            row, position = k.bind(window.row(y, ky)), k.bind(window.column(column, kx))
            inside = tirx.op.all(row >= 0, row < window.input[0], position >= 0, position < window.input[1])
            with k.when(inside):
                group = tirx.op.floordiv(filter_, filters)
                value = x.read(k, [n, group * channels + channel, row, position])
                k.assign(total, 0, total[0] + value * weights.read(k, [filter_, channel, ky, kx]))
        store(k, [n, filter_, y, column], total[0])

"""Direct convolution into a channel-blocked output, for any stride, dilation, padding and number of groups.

A tile of vectors of output channels x pixels stays in registers while the input is read one scalar at a time and
broadcast, so the input may have any layout. Weights are packed in the order in which the loops read them. Sums have the
dtype of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import Segment, Store, for_each_segment, segments
from graphopt.backends.kernels.geometry import Tiles
from graphopt.backends.kernels.lanes import lane_of
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import for_each_tile, split_index, tile_count
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Tensor

PARALLEL_MACS = 200_000
"""Multiply-adds below which a convolution stays on one thread."""


def pack_weights(
    weights: np.ndarray[Any, Any], shape: ConvShape, tile: ConvTile, lanes: int
) -> np.ndarray[Any, Any]:
    """`[filters * groups, channels, kh, kw]` to `[groups, filter tiles, channel blocks, kh, kw, lane, tile vector]`, flat.

    The last tile of a group may have fewer vectors, whose missing filters are zero; the last block may have fewer lanes.
    """
    kh, kw = shape.window.kernel
    filters = _whole(shape.filters, lanes)
    padded = np.zeros((shape.groups, filters, shape.channels, kh, kw), weights.dtype)
    padded[:, : shape.filters] = weights.reshape(shape.groups, -1, *weights.shape[1:])
    tiles = []
    for part in segments(filters, tile.blocks * lanes):
        chosen = padded[:, part.start : part.start + part.repeat * part.extent]
        split = chosen.reshape(shape.groups, part.repeat, part.extent, shape.channels, kh, kw)
        blocks = [
            split[:, :, :, start : start + lanes].transpose(0, 1, 4, 5, 3, 2).reshape(*split.shape[:2], -1)
            for start in range(0, shape.channels, lanes)
        ]
        tiles.append(np.concatenate(blocks, 2).reshape(shape.groups, -1))
    return np.concatenate(tiles, 1).reshape(-1)


def pad_bias(bias: np.ndarray[Any, Any], shape: ConvShape, lanes: int) -> np.ndarray[Any, Any]:
    """`[filters * groups]` with each group's filters filled up to whole vectors by zeros."""
    padded = np.zeros((shape.groups, _whole(shape.filters, lanes)), bias.dtype)
    padded[:, : shape.filters] = bias.reshape(shape.groups, shape.filters)
    return padded


def _whole(count: int, lanes: int) -> int:
    return -(-count // lanes) * lanes


@dataclass(frozen=True)
class Place:
    """A tile of the output: `blocks` vectors of channels from `block` (of its group) x the pixels of two runs of tiles."""

    n: Expr
    group: Expr
    block: Expr
    blocks: int
    rows: Tiles
    columns: Tiles
    y: Expr
    x: Expr

    @property
    def pixels(self) -> list[tuple[int, int]]:
        """Row and column of every pixel within the tile."""
        return [(row, column) for row in range(self.rows.width) for column in range(self.columns.width)]

    @property
    def vectors(self) -> int:
        return self.blocks * len(self.pixels)

    def vector(self, block: int, pixel: tuple[int, int]) -> int:
        """Which of the tile's vectors holds a block of a pixel."""
        return (block * self.rows.width + pixel[0]) * self.columns.width + pixel[1]


@dataclass(frozen=True)
class Tap:
    """What one step of a sum reads: a lane of a block of input channels, which has `lanes`, at a place of the window."""

    block: Expr
    lanes: Expr
    lane: Expr
    y: Expr
    x: Expr


@dataclass(frozen=True)
class ConvKernel:
    """Emits one convolution of an aligned shape. `weights` and `bias` are packed for `tile`.

    `store` gets every sum with its logical output index.
    """

    shape: ConvShape
    tile: ConvTile
    core: Core
    input: Tensor
    weights: Buffer
    bias: Buffer | None
    store: Store
    spread: tuple[tuple[int, int], tuple[int, int]] = ((1, 0), (1, 0))
    """Distance and start, per axis, of the outputs it computes (a transposed convolution is several of these)."""

    @property
    def lanes(self) -> int:
        return self.core.lanes

    @property
    def dtype(self) -> str:
        return self.weights.dtype

    def emit(self, k: KernelBuilder) -> None:
        shape = self.shape
        filters = segments(-(-shape.filters // self.lanes), self.tile.blocks)
        rows, columns = shape.window.tiles(self.tile.rows, self.tile.columns)
        tiles = tile_count(rows) * tile_count(columns)
        parts = self._image_parts(tiles)
        per_part = -(-tiles // parts)
        units = [shape.batch, shape.groups, parts, sum(f.repeat for f in filters), per_part]
        kind = loop_kind(shape.macs, PARALLEL_MACS)
        with k.loop(math.prod(units), kind, "unit") as unit:
            n, group, part, filter_tile, within = (k.bind(index) for index in split_index(unit, units))
            tile = k.bind(part * per_part + within)

            def emit_tile(f: Segment, block: Expr, tile_rows: Tiles, y: Expr) -> None:
                def of(tile_columns: Tiles, x: Expr) -> None:
                    self._tile(k, Place(n, group, k.bind(block), f.extent, tile_rows, tile_columns, y, x))

                for_each_tile(k, columns, column_index, of)

            def emit_filters(f: Segment, block: Expr) -> None:
                for_each_tile(k, rows, row_index, lambda r, y: emit_tile(f, block, r, y))

            row_index, column_index = (
                k.bind(i) for i in split_index(tile, [tile_count(rows), tile_count(columns)])
            )
            with k.when(parts * per_part == tiles or tile < tiles):
                for_each_segment(k, filters, filter_tile, emit_filters)

    def _image_parts(self, tiles: int) -> int:
        """Into how many parts, each computed for all filters at a time, the image is cut.

        Single tiles where the weights stay in the cache: threads then share out the image, as they do in the kernels
        before and after, and read what they have written themselves.
        """
        if 4 * self.shape.filters * self.shape.depth <= self._cached:
            return tiles
        read = math.prod(min(axis.input, axis.output * axis.kernel) for axis in self.shape.window.axes)
        return min(-(-4 * self.shape.channels * read // self._cached), tiles)

    @property
    def _cached(self) -> int:
        """Bytes of input or of weights that stay in a core's second-level cache while they are read again and again."""
        return self.core.cache // 2

    def _tile(self, k: KernelBuilder, place: Place) -> None:
        sums = k.local(place.vectors * self.lanes, self.dtype)
        self._initialise(k, sums, place)
        self._accumulate(k, sums, place)
        self._store_all(k, sums, place)

    def _store_all(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        for block in range(place.blocks):
            for pixel in place.pixels:
                self._store(k, sums, place, block, pixel)

    def _store(self, k: KernelBuilder, sums: Local, place: Place, block: int, pixel: tuple[int, int]) -> None:
        first = place.group * self.shape.filters + (place.block + block) * self.lanes
        vector = place.vector(block, pixel) * self.lanes
        with k.loop(self.lanes, "vector", "lane") as lane:
            index = self._output_index(place.n, first + lane, place.y + pixel[0], place.x + pixel[1])
            self.store(k, index, sums[lane + vector])

    def _initialise(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        zero = tirx.Broadcast(const(0, self.dtype), self.lanes)
        first = place.group * -(-self.shape.filters // self.lanes) + place.block
        for block in range(place.blocks):
            start = zero
            if self.bias is not None:
                start = k.bind(k.load_vector(self.bias, (first + block) * self.lanes, self.lanes))
            for pixel in place.pixels:
                k.assign(sums, place.vector(block, pixel) * self.lanes, start, self.lanes)

    def _accumulate(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        full, rest = divmod(self._steps, self._per_block)

        def channel_block(block: Expr, channels: int) -> None:
            for ky, kx, pixels in self._taps(k, place):
                if self._reads_blocks:
                    self._multiply_block(k, sums, place, Tap(block, channels, 0, ky, kx), pixels)
                    continue
                with k.loop(channels, "serial", "channel") as lane:
                    self._multiply(k, sums, place, Tap(block, channels, lane, ky, kx), pixels)

        if full:
            with k.loop(full, "serial", "block") as block:
                channel_block(block, self._per_block)
        if rest:
            channel_block(full, rest)

    @property
    def _steps(self) -> int:
        """Channels, or what an instruction takes of them at once."""
        return self.shape.channels

    @property
    def _per_block(self) -> int:
        """Steps of a block of channels."""
        return self.lanes

    def _taps(self, k: KernelBuilder, place: Place) -> Iterator[tuple[Expr, Expr, list[tuple[int, int]]]]:
        """Loops over the window; gives each tap's row, column, and the pixels of the tile whose input exists."""
        vertical, horizontal = self.shape.window.axes
        for ky, rows in vertical.taps_of_tile(k, place.rows, place.y):
            for kx, columns in horizontal.taps_of_tile(k, place.columns, place.x):
                yield ky, kx, [(row, column) for row in rows for column in columns]

    def _multiply(
        self,
        k: KernelBuilder,
        sums: Local,
        place: Place,
        tap: Tap,
        pixels: list[tuple[int, int]],
    ) -> None:
        weights = self._weights(k, place, tap)
        channel = self._first_channel(place) + tap.block * self.lanes + tap.lane
        for pixel, index in self._inputs(place, tap, channel, pixels):
            scalar = self.input.reader(k, index)
            self._add(k, sums, place, pixel, tirx.Broadcast(scalar, self.lanes), weights)

    @property
    def _reads_blocks(self) -> bool:
        """Whether a vector of the input holds the scalars of a whole block of channels."""
        starts_a_block = self.shape.groups == 1 or self.shape.channels % self.lanes == 0
        is_blocked = self.input.is_blocked and self.input.block == self.lanes
        return (
            self.core.by_lane
            and is_blocked
            and starts_a_block
            and self.dtype == self.input.dtype == "float32"
        )

    def _multiply_block(
        self, k: KernelBuilder, sums: Local, place: Place, tap: Tap, pixels: list[tuple[int, int]]
    ) -> None:
        """The steps of all channels of a block."""
        storage = self.input.storage
        assert storage is not None
        assert isinstance(storage.layout, Blocked)
        first = self._first_channel(place) // self.lanes + tap.block
        vectors = {}
        for pixel, (n, _, *spatial) in self._inputs(place, tap, first, pixels):
            at = storage.layout.block_position(n, first, spatial)
            vectors[pixel] = k.bind(k.load_vector(storage.buffer, at, self.lanes))
        for lane in range(tap.lanes):
            weights = self._weights(k, place, replace(tap, lane=lane))
            for pixel, vector in vectors.items():
                self._add(k, sums, place, pixel, lane_of(vector, lane, self.lanes), weights)

    def _inputs(
        self, place: Place, tap: Tap, channel: Expr, pixels: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], list[Expr]]]:
        """The index of the input that each pixel reads at a tap."""
        window = self.shape.window
        for row, column in pixels:
            at = window.row(place.y + row, tap.y), window.column(place.x + column, tap.x)
            yield (row, column), self._input_index(place.n, channel, *at)

    def _weights(self, k: KernelBuilder, place: Place, tap: Tap) -> list[Expr]:
        first, lanes = self._weights_position(place, tap), self.lanes
        return [k.bind(k.load_vector(self.weights, first + b * lanes, lanes)) for b in range(place.blocks)]

    def _add(
        self,
        k: KernelBuilder,
        sums: Local,
        place: Place,
        pixel: tuple[int, int],
        scalar: Expr,
        weights: list[Expr],
    ) -> None:
        """The products of one input with the weights of all filters of the tile."""
        for block, weight in enumerate(weights):
            vector = place.vector(block, pixel) * self.lanes
            total = k.read_vector(sums, vector, self.lanes) + scalar * weight
            k.assign(sums, vector, total, self.lanes)

    def _weights_position(self, place: Place, tap: Tap) -> Expr:
        """Where the weights of one input channel and tap for the tile's filters start."""
        kh, kw = self.shape.window.kernel
        tile = place.group * -(-self.shape.filters // self.lanes) + place.block
        row = (tap.block * self.lanes) * (kh * kw) + (tap.y * kw + tap.x) * tap.lanes + tap.lane
        return (tile * self.shape.depth + row * place.blocks) * self.lanes

    def _first_channel(self, place: Place) -> Expr:
        """The first input channel that a tile of filters reads."""
        return place.group * self.shape.channels

    def _input_index(self, n: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        if self._is_flattened:
            y, x = self._row_and_column(x)
        return [n, channel, x] if self.input.rank == 3 else [n, channel, y, x]

    def _output_index(self, n: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        """A flattened pointwise convolution finds its row and column again."""
        if self._is_flattened:
            y, x = self._row_and_column(x)
        (y_stride, y_start), (x_stride, x_start) = self.spread
        y, x = y * y_stride + y_start, x * x_stride + x_start
        return [n, channel, x] if self.input.rank == 3 else [n, channel, y, x]

    @property
    def _is_flattened(self) -> bool:
        """Whether the window sees an image of several rows as one."""
        return self.input.rank == 4 and self.shape.window.input[0] != self.input.shape[2]

    def _row_and_column(self, position: Expr) -> tuple[Expr, Expr]:
        columns = self.input.shape[3]
        return tirx.op.floordiv(position, columns), tirx.op.floormod(position, columns)

"""Direct convolution into a channel-blocked output, for any stride, dilation, padding and number of groups.

A tile of `blocks` x `pixels` vectors of output channels stays in registers while the input is read one scalar at a time
and broadcast, so the input may have any layout. Weights are packed in the order in which the loops read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.registers import REGISTERS
from graphopt.backends.kernels.window import Tiles, Window, for_each_tile, row_tiles, split_index, tile_count
from graphopt.backends.tensor import Storage, Tensor

PARALLEL_MACS = 200_000
"""Multiply-adds below which a convolution stays on one thread."""


@dataclass(frozen=True)
class ConvShape:
    """`channels` and `filters` are those of one group."""

    batch: int
    groups: int
    channels: int
    filters: int
    window: Window

    def is_aligned(self, lanes: int) -> bool:
        """Whether every group starts on a whole vector of output channels, so that the output can be blocked."""
        return self.groups == 1 or self.filters % lanes == 0

    @property
    def macs(self) -> int:
        h, w = self.window.output
        kh, kw = self.window.kernel
        return self.batch * self.groups * self.filters * h * w * self.channels * kh * kw


@dataclass(frozen=True)
class ConvTile:
    """Vectors of output channels x output pixels held in registers."""

    blocks: int
    pixels: int


def choose_tile(shape: ConvShape, lanes: int) -> ConvTile:
    """The tile with the fewest estimated cycles a row: two multiply-adds or two loads a cycle, latency of four."""
    filter_blocks = -(-shape.filters // lanes)
    width = shape.window.output[1]
    best, best_cycles = ConvTile(1, 1), float("inf")
    for blocks in (b for b in range(1, min(filter_blocks, 8) + 1) if filter_blocks % b == 0):
        for pixels in range(1, min(width, 30) + 1):
            if blocks * pixels + min(blocks, pixels) + 1 > REGISTERS[lanes]:
                continue
            cycles = filter_blocks // blocks * _row_cycles(width, blocks, pixels)
            if cycles < best_cycles * 0.999:
                best, best_cycles = ConvTile(blocks, pixels), cycles
    return best


def _row_cycles(width: int, blocks: int, pixels: int) -> float:
    def cycles(columns: int) -> float:
        return max(blocks * columns / 2, (blocks + columns) / 2, 4.0)

    full, rest = divmod(width, pixels)
    return full * cycles(pixels) + (cycles(rest) if rest else 0.0)


def pack_weights(
    weights: np.ndarray[Any, Any], shape: ConvShape, tile: ConvTile, lanes: int
) -> np.ndarray[Any, Any]:
    """`[filters * groups, channels, kh, kw]` to `[groups, filter tiles, channel blocks, kh, kw, lane, tile vector]`.

    Missing filters are zero; the last channel block keeps `lanes` rows, of which the kernel reads only the real ones.
    """
    kh, kw = shape.window.kernel
    filters = -(-shape.filters // lanes) * lanes
    channels = -(-shape.channels // lanes) * lanes
    grouped = weights.reshape(shape.groups, shape.filters, shape.channels, kh, kw)
    padded = np.zeros((shape.groups, filters, channels, kh, kw), weights.dtype)
    padded[:, : shape.filters, : shape.channels] = grouped
    vector = tile.blocks * lanes
    blocked = padded.reshape(shape.groups, filters // vector, vector, channels // lanes, lanes, kh, kw)
    return np.ascontiguousarray(blocked.transpose(0, 1, 3, 5, 6, 4, 2))


def pad_bias(bias: np.ndarray[Any, Any], shape: ConvShape, lanes: int) -> np.ndarray[Any, Any]:
    """`[filters * groups]` with each group's filters filled up to whole vectors by zeros."""
    filters = -(-shape.filters // lanes) * lanes
    padded = np.zeros((shape.groups, filters), bias.dtype)
    padded[:, : shape.filters] = bias.reshape(shape.groups, shape.filters)
    return padded


@dataclass(frozen=True)
class ConvKernel:
    """Emits one convolution of an aligned shape. `weights` and `bias` are packed for `tile`."""

    shape: ConvShape
    tile: ConvTile
    lanes: int
    input: Tensor
    weights: Buffer
    bias: Buffer | None
    epilogue: Epilogue
    out: Storage
    spread: tuple[tuple[int, int], tuple[int, int]] = ((1, 0), (1, 0))
    """Distance and start, per axis, of the outputs it computes (a transposed convolution is several of these)."""

    def emit(self, k: KernelBuilder) -> None:
        shape, tile = self.shape, self.tile
        filter_tiles = -(-shape.filters // (tile.blocks * self.lanes))
        rows = shape.window.output[0]
        tiles = row_tiles(shape.window, tile.pixels)
        kind = "parallel" if shape.macs >= PARALLEL_MACS else "serial"
        units = [shape.batch, shape.groups, filter_tiles, rows, tile_count(tiles)]
        with k.loop(int(np.prod(units)), kind, "unit") as unit:
            n, group, filter_tile, y, t = (k.bind(index) for index in split_index(unit, units))
            for_each_tile(k, tiles, t, lambda run, x: self._tile(k, run, n, group, filter_tile, y, x))

    def _tile(
        self, k: KernelBuilder, run: Tiles, n: Expr, group: Expr, filter_tile: Expr, y: Expr, x: Expr
    ) -> None:
        vectors = self.tile.blocks * run.width
        accumulators = k.local(vectors * self.lanes, "float32")
        group_filters = -(-self.shape.filters // self.lanes)
        first_block = k.bind(group * group_filters + filter_tile * self.tile.blocks)
        self._initialise(k, accumulators, run, first_block)
        self._accumulate(k, accumulators, run, n, group, filter_tile, y, x)
        for block in range(self.tile.blocks):
            for pixel in range(run.width):
                local = (filter_tile * self.tile.blocks + block) * self.lanes
                vector = (block * run.width + pixel) * self.lanes
                self._store(k, accumulators, vector, (n, group, local, y, x + pixel))

    def _store(
        self, k: KernelBuilder, accumulators: Local, vector: int, at: tuple[Expr, Expr, Expr, Expr, Expr]
    ) -> None:
        n, group, local, y, x = at
        first = group * self.shape.filters + local
        with k.loop(self.lanes, "vector", "lane") as lane:
            self.epilogue.store(k, self.out, self._index(n, first + lane, y, x), accumulators[vector + lane])

    def _index(self, n: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        """The logical output index; a flattened pointwise convolution finds its row and column again."""
        if self._is_flattened:
            y, x = self._row_and_column(x)
        (y_stride, y_start), (x_stride, x_start) = self.spread
        y, x = y * y_stride + y_start, x * x_stride + x_start
        return [n, channel, x] if self.input.rank == 3 else [n, channel, y, x]

    def _initialise(self, k: KernelBuilder, accumulators: Local, run: Tiles, first_block: Expr) -> None:
        zero = tirx.Broadcast(tirx.const(0.0, "float32"), self.lanes)
        for block in range(self.tile.blocks):
            start = zero
            if self.bias is not None:
                start = k.bind(k.load_vector(self.bias, (first_block + block) * self.lanes, self.lanes))
            for pixel in range(run.width):
                k.assign(accumulators, (block * run.width + pixel) * self.lanes, start, self.lanes)

    def _accumulate(
        self,
        k: KernelBuilder,
        accumulators: Local,
        run: Tiles,
        n: Expr,
        group: Expr,
        filter_tile: Expr,
        y: Expr,
        x: Expr,
    ) -> None:
        full, rest = divmod(self.shape.channels, self.lanes)

        def channel_block(block: Expr, channels: int) -> None:
            for ky, kx, columns in self._taps(k, run, y, x):
                with k.loop(channels, "serial", "channel") as lane:
                    self._multiply(
                        k, accumulators, run, (n, group, filter_tile, y, x), (block, lane, ky, kx), columns
                    )

        if full:
            with k.loop(full, "serial", "block") as block:
                channel_block(block, self.lanes)
        if rest:
            channel_block(full, rest)

    def _taps(self, k: KernelBuilder, run: Tiles, y: Expr, x: Expr) -> Iterator[tuple[Expr, Expr, list[int]]]:
        """Loops over the window; gives each tap's row, column, and the pixels of the tile whose input exists."""
        window = self.shape.window
        everything = list(range(run.width))
        first, count = window.row_range(y)
        with k.loop(count, "serial", "ky") as row:
            ky = first + row
            if run.interior:
                with k.loop(window.kernel[1], "serial", "kx") as kx:
                    yield ky, kx, everything
                return
            for tap in range(window.kernel[1]):
                columns = [pixel for pixel in everything if window.has_column(run.start + pixel, tap)]
                if columns:
                    yield ky, tap, columns

    def _multiply(
        self,
        k: KernelBuilder,
        accumulators: Local,
        run: Tiles,
        position: tuple[Expr, Expr, Expr, Expr, Expr],
        tap: tuple[Expr, Expr, Expr, Expr],
        columns: list[int],
    ) -> None:
        n, group, filter_tile, y, x = position
        channel_block, lane, ky, kx = tap
        shape, window, lanes = self.shape, self.shape.window, self.lanes
        channel_blocks = -(-shape.channels // lanes)
        filter_tiles = -(-shape.filters // (self.tile.blocks * lanes))
        row: Expr = (group * filter_tiles + filter_tile) * channel_blocks + channel_block
        row = (row * window.kernel[0] + ky) * window.kernel[1] + kx
        row = (row * lanes + lane) * self.tile.blocks
        weights = [
            k.bind(k.load_vector(self.weights, (row + block) * lanes, lanes))
            for block in range(self.tile.blocks)
        ]
        channel = self._first_channel(group, filter_tile) + channel_block * lanes + lane
        for pixel in columns:
            index = self._input_index(n, channel, window.row(y, ky), window.column(x + pixel, kx))
            scalar = tirx.Broadcast(self.input.reader(k, index), lanes)
            for block, weight in enumerate(weights):
                at = (block * run.width + pixel) * lanes
                k.assign(accumulators, at, k.read_vector(accumulators, at, lanes) + scalar * weight, lanes)

    def _first_channel(self, group: Expr, filter_tile: Expr) -> Expr:
        """The first input channel that a tile of filters reads."""
        return group * self.shape.channels

    def _input_index(self, n: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        if self._is_flattened:
            y, x = self._row_and_column(x)
        return [n, channel, x] if self.input.rank == 3 else [n, channel, y, x]

    @property
    def _is_flattened(self) -> bool:
        """Whether the window sees an image of several rows as one."""
        return self.input.rank == 4 and self.shape.window.input[0] != self.input.shape[2]

    def _row_and_column(self, position: Expr) -> tuple[Expr, Expr]:
        columns = self.input.shape[3]
        return tirx.op.floordiv(position, columns), tirx.op.floormod(position, columns)


def flatten_pointwise(shape: ConvShape) -> ConvShape:
    """A pointwise convolution seen as one long row, so that tiles need not end with a row of the image."""
    return replace(shape, window=shape.window.flattened()) if shape.window.is_pointwise else shape

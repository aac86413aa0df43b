"""The loops of a window that slides over a blocked tensor channel by channel: depthwise convolution and pooling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.kernels.geometry import Tiles
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import Window, for_each_tile, split_index, tile_count
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor

PIXELS = 8
"""Output columns a tile holds in registers."""

MOST_PARTS = 8
"""Parts of an image of any height: enough for threads to share, few enough that rows are read again from the cache."""

PARALLEL_TAPS = 200_000
"""Reads of the input below which a kernel stays on one thread."""


@dataclass(frozen=True)
class SlidingKernel(ABC):
    """`input` is blocked `[n, channels, h, w]` (or `[n, channels, w]`); `out` has the same channels."""

    window: Window
    lanes: int
    input: Tensor
    out: Storage

    @property
    def accumulator(self) -> str:
        """The dtype of the sums."""
        return self.input.dtype

    @abstractmethod
    def initial(self, k: KernelBuilder, block: Expr) -> Expr:
        """The vector an accumulator starts with."""

    @abstractmethod
    def tap(self, k: KernelBuilder, block: Expr, ky: Expr, kx: Expr) -> Expr:
        """The weight vector of a tap, computed once a tile."""

    @abstractmethod
    def combine(self, accumulator: Expr, value: Expr, weight: Expr) -> Expr:
        """The accumulator after one more input vector."""

    @abstractmethod
    def finish(
        self, k: KernelBuilder, accumulators: Local, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr
    ) -> None:
        """Store the results of a tile that starts at column `x`."""

    def emit(self, k: KernelBuilder) -> None:
        """Add the whole kernel to `k`."""
        window = self.window
        tiles = window.axes[1].tiles(PIXELS)
        batch, channels = self.input.shape[:2]
        parts = _image_parts(window.output[0])
        rows = window.output[0] // max(parts, 1)
        units = [batch, parts, -(-channels // self.lanes), rows, tile_count(tiles)]
        taps = int(np.prod(units[:4])) * self.lanes * window.output[1] * int(np.prod(window.kernel))
        with k.loop(int(np.prod(units)), loop_kind(taps, PARALLEL_TAPS), "unit") as unit:
            n, part, block, row, t = (k.bind(index) for index in split_index(unit, units))
            y = k.bind(part * rows + row)
            for_each_tile(k, tiles, t, lambda run, x: self._tile(k, run, n, block, y, x))

    def index(self, n: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        """A logical index; one-dimensional tensors have no rows."""
        return [n, channel, x] if self.input.rank == 3 else [n, channel, y, x]

    def _tile(self, k: KernelBuilder, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr) -> None:
        accumulators = k.local(run.width * self.lanes, self.accumulator)
        initial = self.initial(k, block)
        for pixel in range(run.width):
            k.assign(accumulators, pixel * self.lanes, initial, self.lanes)
        for ky, kx, columns in self._taps(k, run, y):
            weight = self.tap(k, block, ky, kx)
            for pixel in columns:
                value = self.load(k, n, block, self.window.row(y, ky), self.window.column(x + pixel, kx))
                at = pixel * self.lanes
                result = self.combine(k.read_vector(accumulators, at, self.lanes), value, weight)
                k.assign(accumulators, at, result, self.lanes)
        self.finish(k, accumulators, run, n, block, y, x)

    def _taps(self, k: KernelBuilder, run: Tiles, y: Expr) -> Iterator[tuple[Expr, Expr, list[int]]]:
        first, count = self.window.row_range(y)
        with k.loop(count, "serial", "ky") as row:
            for kx in range(self.window.kernel[1]):
                columns = [
                    pixel
                    for pixel in range(run.width)
                    if run.interior or self.window.axes[1].has(run.start + pixel, kx)
                ]
                if columns:
                    yield first + row, kx, columns

    def load(self, k: KernelBuilder, n: Expr, block: Expr, y: Expr, x: Expr) -> Expr:
        """A vector of the input."""
        assert self.input.storage is not None
        layout = self.input.storage.layout
        assert isinstance(layout, Blocked)
        offset = layout.block_position(n, block, [x] if self.input.rank == 3 else [y, x])
        return k.load_vector(self.input.storage.buffer, offset, self.lanes)


def _image_parts(rows: int) -> int:
    """Into how many parts of equal height, each computed for all channels, the image is cut, so that threads share it out."""
    return next((parts for parts in range(MOST_PARTS, 1, -1) if rows % parts == 0), rows)


def lowest(dtype: str, lanes: int) -> Expr:
    """A vector of the smallest value of `dtype`: minus infinity for floats."""
    value = -np.inf if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min
    return tirx.Broadcast(tirx.const(value, dtype), lanes)

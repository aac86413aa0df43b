"""Direct convolution of float16, whose sums are float16 for a part of the channels or of the window at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.kernels.conv import Place, Tap
from graphopt.backends.kernels.narrow import Narrow, parts
from graphopt.backends.kernels.pair_conv import PairConvKernel, Pixel


@dataclass(frozen=True, kw_only=True)
class NarrowConvKernel(PairConvKernel):
    """`core` is one of `wide_core`; the input and the output have blocks of half as many channels."""

    pairs: Narrow

    def _accumulate(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        blocks, rest = divmod(self._steps, self._per_block)
        taps = self.shape.window.kernel[0] * self.shape.window.kernel[1]
        together = self.pairs.half.terms // (self._per_block * taps)
        for start, length, count in parts(blocks, max(together, 1)):
            with k.loop(count, "serial", "part") as part:
                self._add_blocks(k, sums, place, start + part * length, length, self._per_block, together)
        if rest:
            self._add_blocks(k, sums, place, blocks, 1, rest, together)

    def _add_blocks(
        self, k: KernelBuilder, sums: Local, place: Place, first: Expr, count: int, lanes: int, together: int
    ) -> None:
        """The products of `count` blocks of channels, of which `lanes` exist each: one sum of float16, or where a single block has too
        many taps, one for each row of the window."""
        if not together:
            self._add_rows(k, sums, place, first, lanes)
            return
        with self._narrow(k, sums, place) as narrow, k.loop(count, "serial", "block") as block:
            for ky, kx, pixels in self._taps(k, place):
                self._multiply_block(k, narrow, place, Tap(first + block, lanes, 0, ky, kx), pixels)

    def _add_rows(self, k: KernelBuilder, sums: Local, place: Place, block: Expr, lanes: int) -> None:
        vertical, horizontal = self.shape.window.axes
        for ky, rows in vertical.taps_of_tile(k, place.rows, place.y):
            with self._narrow(k, sums, place) as narrow:
                for kx, columns in horizontal.taps_of_tile(k, place.columns, place.x):
                    pixels = [(row, column) for row in rows for column in columns]
                    self._multiply_block(k, narrow, place, Tap(block, lanes, 0, ky, kx), pixels)

    @contextmanager
    def _narrow(self, k: KernelBuilder, sums: Local, place: Place) -> Iterator[Local]:
        """Sums of float16 for the body of the `with` statement, added to `sums` after it."""
        narrow = self.pairs.start(k, place.vectors)
        yield narrow
        self.pairs.widen(k, narrow, sums, place.vectors)

    def _store(self, k: KernelBuilder, sums: Local, place: Place, block: int, pixel: Pixel) -> None:
        """A vector is two blocks of channels, the second of which the output may lack."""
        lanes = self.input.block
        first = place.group * self.shape.filters + (place.block + block) * self.lanes
        missing = -(-self.shape.filters // lanes) % 2
        last = self.shape.filters // self.lanes
        for half in range(2):
            exists = place.block + block < last if missing and half else True
            with k.when(exists), k.loop(lanes, "vector", "lane") as lane:
                channel = first + half * lanes + lane
                index = self._output_index(place.n, channel, place.y + pixel[0], place.x + pixel[1])
                at = place.vector(block, pixel) * self.lanes + half * lanes
                self.store(k, index, sums[lane + at])

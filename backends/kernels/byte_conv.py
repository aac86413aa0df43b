"""Direct convolution of bytes into exact int32 sums.

The input is stored as it is, in channel blocks, zero point and all: what that adds to every sum is a constant of the filter, which
is taken off again, tap by tap where the window may reach beyond the image. Weights whose zero point keeps them from being int8 are
moved by a constant of the filter, times which the sum of the inputs is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.conv import ConvKernel, Place, Tap
from graphopt.backends.kernels.lanes import runs
from graphopt.backends.layout import Blocked

Pixel = tuple[int, int]
"""Row and column within a tile."""


@dataclass(frozen=True, kw_only=True)
class ByteConvKernel(ConvKernel):
    """`weights` are packed by `pack_unit_filters`. `bias` has the sums that all taps together start with, `taps` what each tap
    that an output has adds to that; one of them is None. `shifts` has what must be added to the weights of each filter, or is None."""

    taps: Buffer | None
    shifts: Buffer | None

    @property
    def dtype(self) -> str:
        return "int32"

    def _zeros(self, k: KernelBuilder, vectors: int) -> Local:
        """So many vectors of sums."""
        sums = k.local(vectors * self.lanes, "int32")
        for vector in range(vectors):
            k.assign(sums, vector * self.lanes, tirx.Broadcast(const(0, "int32"), self.lanes), self.lanes)
        return sums

    def _add_all_zeros(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        """What zero points add, tap by tap."""
        if self.taps is not None:
            for ky, kx, pixels in self._taps(k, place):
                self._add_zeros(k, sums, place, (ky, kx), pixels)

    def _add_shifts(self, k: KernelBuilder, sums: Local, inputs: Local, place: Place) -> None:
        assert self.shifts is not None
        first = place.group * -(-self.shape.filters // self.lanes) + place.block
        for block in range(place.blocks):
            shift = k.bind(k.load_vector(self.shifts, (first + block) * self.lanes, self.lanes))
            for i, pixel in enumerate(place.pixels):
                vector = place.vector(block, pixel) * self.lanes
                more = k.read_vector(inputs, i * self.lanes, self.lanes) * shift
                k.assign(sums, vector, k.read_vector(sums, vector, self.lanes) + more, self.lanes)

    def _add_zeros(
        self,
        k: KernelBuilder,
        sums: Local,
        place: Place,
        tap: tuple[Expr, Expr],
        pixels: list[Pixel],
    ) -> None:
        assert self.taps is not None
        vectors = -(-self.shape.filters // self.lanes)
        first = (tap[0] * self.shape.window.kernel[1] + tap[1]) * self.shape.groups * vectors
        for block in range(place.blocks):
            at = first + place.group * vectors + place.block + block
            value = k.bind(k.load_vector(self.taps, at * self.lanes, self.lanes))
            for pixel in pixels:
                vector = place.vector(block, pixel) * self.lanes
                k.assign(sums, vector, k.read_vector(sums, vector, self.lanes) + value, self.lanes)

    def _bytes(self, place: Place, tap: Tap, pixel: Pixel) -> tuple[Buffer, Expr]:
        """Where the block of channels that a pixel reads at a tap starts."""
        storage, window = self.input.storage, self.shape.window
        assert storage is not None
        assert isinstance(storage.layout, Blocked)
        y, x = window.row(place.y + pixel[0], tap.y), window.column(place.x + pixel[1], tap.x)
        channels = self._first_channel(place) // self.input.block + tap.block
        n, channel, *spatial = self._input_index(place.n, channels, y, x)
        return storage.buffer, storage.layout.block_position(n, channel, spatial)

    def _runs(
        self, place: Place, tap: Tap, pixels: list[Pixel]
    ) -> Iterator[tuple[Buffer, Expr, int, dict[Pixel, int]]]:
        """Neighbouring blocks of channels that some pixels read at a tap: where they are, how many, and which is whose."""
        stride = self.shape.window.strides[1]
        for row, of_row in groupby(pixels, itemgetter(0)):
            columns = [column for _, column in of_row]
            buffer, base = self._bytes(place, tap, (row, columns[0]))
            places = {(column - columns[0]) * stride: (row, column) for column in columns}
            for run in runs(list(places), self.lanes):
                numbers = {places[at]: at - run.start for at in run.places}
                yield buffer, base + run.start * self.input.block, run.extent, numbers

    def _filters_position(self, place: Place, row: Expr, rows: int) -> Expr:
        """How many vectors of weights lie before those of a row for the tile's filters; each filter has `rows`."""
        tile = place.group * -(-self.shape.filters // self.lanes) + place.block
        return tile * rows + row * place.blocks

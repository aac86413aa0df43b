"""Direct convolution of bytes into exact int32 sums, four input channels at a time.

The input is stored as it is, in channel blocks, zero point and all: what that adds to every sum is a constant of the filter, which
is taken off again, tap by tap where the window may reach beyond the image. Weights whose zero point keeps them from being int8 are
moved by a constant of the filter, times which the sum of the inputs is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, cast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.conv import ConvKernel, Place, Tap
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile
from graphopt.backends.kernels.gemm import segments
from graphopt.backends.kernels.lanes import runs
from graphopt.backends.kernels.quads import QUAD, Quads
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor

PARALLEL_ELEMENTS = 16384
"""Elements below which moving them stays on one thread."""


def in_quads(shape: ConvShape) -> ConvShape:
    """The convolution with a channel for every four, whose steps and tiles cost as much."""
    return replace(shape, channels=-(-shape.channels // QUAD))


def emit_quads(k: KernelBuilder, value: Tensor, out: Storage, lanes: int) -> None:
    """Store `value` `[n, channels, h, w]` of at most four channels of bytes into `out`, four channels together, zeros the rest."""
    batch, channels, height, width = value.shape
    with k.loop(batch * height, loop_kind(value.size, PARALLEL_ELEMENTS), "row") as unit:
        n, y = (k.bind(i) for i in split_index(unit, [batch, height]))

        def pixels(x: Expr, count: int) -> None:
            words = k.local(count, "int32")
            with k.loop(count, "vector" if count > 1 else "serial", "lane") as lane:
                word: Expr = const(0, "int32")
                for channel in range(channels):
                    byte = cast(value.read(k, [n, channel, y, x + lane]), "int32") & const(255, "int32")
                    word = word + byte * const(1 << 8 * channel, "int32")
                k.assign(words, lane, word)
            packed = tirx.op.reinterpret(f"{value.dtype}x{QUAD * count}", k.read_vector(words, 0, count))
            k.store_vector(out.buffer, out.layout.position([n, 0, y, x]), packed, QUAD * count)

        for part in segments(width, lanes):
            size = lanes if part.extent == lanes else 1
            with k.loop(part.repeat * part.extent // size, "serial", "pixels") as number:
                pixels(k.bind(part.start + number * size), size)


def pack_quads(
    weights: np.ndarray[Any, Any], shape: ConvShape, tile: ConvTile, quads: Quads, block: int
) -> np.ndarray[Any, Any]:
    """`[filters * groups, channels, kh, kw]` to `[groups, filter tiles, channel blocks, kh, kw, quad, tile vector, lane, 4]`, flat,
    filters and channels filled up with zeros; `block` is that of the input."""
    lanes, (kh, kw) = quads.lanes, shape.window.kernel
    filters, channels = _whole(shape.filters, lanes), _whole(shape.channels, QUAD)
    padded = np.zeros((shape.groups, filters, channels, kh, kw), np.int8)
    padded[:, : shape.filters, : shape.channels] = weights.reshape(shape.groups, -1, *weights.shape[1:])
    split = padded.reshape(shape.groups, filters, -1, QUAD, kh, kw)
    tiles = []
    for part in segments(filters, tile.blocks * lanes):
        chosen = split[:, part.start : part.start + part.repeat * part.extent]
        for number in range(part.repeat):
            own = chosen[:, number * part.extent : (number + 1) * part.extent]
            blocks = [
                quads.pack(own[:, :, first : first + block // QUAD].transpose(0, 4, 5, 2, 1, 3))
                for first in range(0, split.shape[2], block // QUAD)
            ]
            tiles.append(np.concatenate([block.reshape(shape.groups, -1) for block in blocks], 1))
    return np.concatenate(tiles, 1).reshape(-1).astype(quads.weights_dtype)


def filter_shifts(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the weights of each filter, of which none is further than 255 from another, must be moved by to be int8: int32."""
    low, high = (of(weights.reshape(len(weights), -1), axis=1, initial=0) for of in (np.min, np.max))
    return np.asarray(np.where(low < -128, low + 128, np.where(high > 127, high - 127, 0)), np.int32)


def zero_sums(weights: np.ndarray[Any, Any], shape: ConvShape, zero: int, lanes: int) -> np.ndarray[Any, Any]:
    """What inputs equal to `zero` would take off a sum: int32 `[kh, kw, groups * vectors, lane]`."""
    taps = -zero * weights.astype(np.int32).sum(axis=1)
    filters = _whole(shape.filters, lanes)
    padded = np.zeros((shape.groups, filters, *shape.window.kernel), np.int32)
    padded[:, : shape.filters] = taps.reshape(shape.groups, -1, *taps.shape[1:])
    return np.ascontiguousarray(padded.reshape(-1, lanes, *shape.window.kernel).transpose(2, 3, 0, 1))


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


@dataclass(frozen=True, kw_only=True)
class ByteConvKernel(ConvKernel):
    """`weights` are packed by `pack_quads`. `bias` has the sums that all taps together start with, `taps` what each tap that an
    output has adds to that; one of them is None. `shifts` has what must be added to the weights of each filter, or is None."""

    quads: Quads
    taps: Buffer | None
    shifts: Buffer | None

    @property
    def dtype(self) -> str:
        return "int32"

    def _accumulate(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        per_block, inputs = self.input.block // QUAD, self._input_sums(k, place)
        full, rest = divmod(-(-self.shape.channels // QUAD), per_block)
        if self.taps is not None:
            for ky, kx, pixels in self._taps(k, place):
                self._add_zeros(k, sums, place, (ky, kx), pixels)

        def channel_block(block: Expr, count: int) -> None:
            for ky, kx, pixels in self._taps(k, place):
                with k.loop(count, "serial", "quad") as quad:
                    self._multiply_quad(k, sums, inputs, place, Tap(block, count, quad, ky, kx), pixels)

        if full:
            with k.loop(full, "serial", "block") as block:
                channel_block(block, per_block)
        if rest:
            channel_block(full, rest)
        if inputs is not None:
            self._add_shifts(k, sums, inputs, place)

    def _input_sums(self, k: KernelBuilder, place: Place) -> Local | None:
        """A vector for each pixel of the tile, that sums up its inputs; None where nobody needs that."""
        if self.shifts is None:
            return None
        size = len(place.pixels) * self.lanes
        inputs = k.local(size, "int32")
        for at in range(0, size, self.lanes):
            k.assign(inputs, at, tirx.Broadcast(const(0, "int32"), self.lanes), self.lanes)
        return inputs

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
        pixels: list[tuple[int, int]],
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

    def _multiply_quad(
        self,
        k: KernelBuilder,
        sums: Local,
        inputs: Local | None,
        place: Place,
        tap: Tap,
        pixels: list[tuple[int, int]],
    ) -> None:
        """The products of a quad of channels, which is what a lane is here."""
        first, step = self._quads_position(place, tap), self.quads.step
        weights = [self.quads.weights(k, self.weights, first + b * step) for b in range(place.blocks)]
        for pixel, scalar in self._scalars(k, place, tap, pixels):
            for b, weight in enumerate(weights):
                vector = place.vector(b, pixel) * self.lanes
                total = self.quads.add(k.read_vector(sums, vector, self.lanes), scalar, weight)
                k.assign(sums, vector, total, self.lanes)
            if inputs is not None:
                own = place.pixels.index(pixel) * self.lanes
                total = self.quads.add(k.read_vector(inputs, own, self.lanes), scalar, self.quads.ones)
                k.assign(inputs, own, total, self.lanes)

    def _scalars(
        self, k: KernelBuilder, place: Place, tap: Tap, pixels: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], list[Expr]]]:
        """The quads of activations that pixels read: one by one, or neighbours in one register where they lie next to each other."""
        if not self._reads_runs:
            for pixel in pixels:
                yield pixel, self.quads.scalar(k, *self._quad(place, tap, pixel))
            return
        stride = self.shape.window.strides[1]
        for row, of_row in groupby(pixels, itemgetter(0)):
            columns = [column for _, column in of_row]
            buffer, base = self._quad(place, tap, (row, columns[0]))
            places = {(column - columns[0]) * stride: column for column in columns}
            for run in runs(list(places), self.lanes):
                words = self.quads.words(k, buffer, base + run.start * QUAD, run.extent)
                for at in run.places:
                    yield (row, places[at]), [self.quads.lane(words, at - run.start, self.lanes)]

    @property
    def _reads_runs(self) -> bool:
        """Whether the instruction takes lanes, and pixels follow each other quad by quad."""
        return self.quads.dot.by_lane and self.input.block == QUAD

    def _quad(self, place: Place, tap: Tap, pixel: tuple[int, int]) -> tuple[Buffer, Expr]:
        """Where the activations that a pixel reads at a tap are."""
        storage, window = self.input.storage, self.shape.window
        assert storage is not None
        assert isinstance(storage.layout, Blocked)
        y, x = window.row(place.y + pixel[0], tap.y), window.column(place.x + pixel[1], tap.x)
        channels = self._first_channel(place) // self.input.block + tap.block
        n, channel, *spatial = self._input_index(place.n, channels, y, x)
        return storage.buffer, storage.layout.block_position(n, channel, spatial) + tap.lane * QUAD

    def _quads_position(self, place: Place, tap: Tap) -> Expr:
        """Where the weights of a quad for the tile's filters start."""
        kh, kw = self.shape.window.kernel
        tile = place.group * -(-self.shape.filters // self.lanes) + place.block
        row = tap.block * (self.input.block // QUAD) * (kh * kw) + (tap.y * kw + tap.x) * tap.lanes + tap.lane
        rows = -(-self.shape.channels // QUAD) * kh * kw
        return (tile * rows + row * place.blocks) * self.quads.step

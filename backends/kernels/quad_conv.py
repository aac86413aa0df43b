"""Direct convolution of bytes, four input channels at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.kernels.byte_conv import ByteConvKernel, Pixel
from graphopt.backends.kernels.conv import Place, Tap
from graphopt.backends.kernels.quads import QUAD, Quads


@dataclass(frozen=True, kw_only=True)
class QuadConvKernel(ByteConvKernel):
    """Every vector of sums has the channels of one pixel."""

    arithmetic: Quads

    def _accumulate(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        per_block, inputs = self.input.block // QUAD, self._input_sums(k, place)
        full, rest = divmod(-(-self.shape.channels // QUAD), per_block)
        self._add_all_zeros(k, sums, place)

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
        return self._zeros(k, len(place.pixels))

    def _multiply_quad(
        self,
        k: KernelBuilder,
        sums: Local,
        inputs: Local | None,
        place: Place,
        tap: Tap,
        pixels: list[Pixel],
    ) -> None:
        """The products of a quad of channels, which is what a lane is here."""
        first, step = self._quads_position(place, tap), self.arithmetic.step
        weights = [self.arithmetic.weights(k, self.weights, first + b * step) for b in range(place.blocks)]
        for pixel, scalar in self._scalars(k, place, tap, pixels):
            for b, weight in enumerate(weights):
                vector = place.vector(b, pixel) * self.lanes
                total = self.arithmetic.add(k.read_vector(sums, vector, self.lanes), scalar, weight)
                k.assign(sums, vector, total, self.lanes)
            if inputs is not None:
                own = place.pixels.index(pixel) * self.lanes
                total = self.arithmetic.add(
                    k.read_vector(inputs, own, self.lanes), scalar, self.arithmetic.ones
                )
                k.assign(inputs, own, total, self.lanes)

    def _scalars(
        self, k: KernelBuilder, place: Place, tap: Tap, pixels: list[Pixel]
    ) -> Iterator[tuple[Pixel, list[Expr]]]:
        """The quads of activations that pixels read: one by one, or neighbours in one register where they lie next to each other."""
        if not self._reads_runs:
            for pixel in pixels:
                buffer, position = self._bytes(place, tap, pixel)
                yield pixel, self.arithmetic.scalar(k, buffer, position + tap.lane * QUAD)
            return
        for buffer, position, extent, numbers in self._runs(place, tap, pixels):
            words = self.arithmetic.words(k, buffer, position, extent)
            for pixel, number in numbers.items():
                yield pixel, [self.arithmetic.lane(words, number, self.lanes)]

    @property
    def _reads_runs(self) -> bool:
        """Whether the instruction takes lanes, and pixels follow each other quad by quad."""
        return self.arithmetic.dot.by_lane and self.input.block == QUAD

    def _quads_position(self, place: Place, tap: Tap) -> Expr:
        """Where the weights of a quad for the tile's filters start."""
        kh, kw = self.shape.window.kernel
        row = tap.block * (self.input.block // QUAD) * (kh * kw) + (tap.y * kw + tap.x) * tap.lanes + tap.lane
        rows = -(-self.shape.channels // QUAD) * kh * kw
        return self._filters_position(place, row, rows) * self.arithmetic.step

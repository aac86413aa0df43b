"""Direct convolution of halves, two input channels at a time, which the input's blocks hold next to each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.conv import ConvKernel, Place, Tap
from graphopt.backends.kernels.lanes import lane_of
from graphopt.backends.kernels.narrow import Narrow
from graphopt.backends.kernels.pairs import Pairs
from graphopt.backends.layout import Blocked

Pixel = tuple[int, int]
"""Row and column within a tile."""


@dataclass(frozen=True, kw_only=True)
class PairConvKernel(ConvKernel):
    """`weights` are packed by `pack_unit_filters`; each group starts on a whole block of the input's channels."""

    pairs: Pairs | Narrow

    @property
    def dtype(self) -> str:
        return self.pairs.sums

    @property
    def _steps(self) -> int:
        return -(-self.shape.channels // self.pairs.unit)

    @property
    def _per_block(self) -> int:
        return self.input.block // self.pairs.unit

    @property
    def _reads_blocks(self) -> bool:
        """Whether a vector of the input holds all pairs of a block of channels."""
        return self.pairs.by_lane and self._per_block > 1

    def _multiply_block(
        self, k: KernelBuilder, sums: Local, place: Place, tap: Tap, pixels: list[Pixel]
    ) -> None:
        """The products of all pairs of a block."""
        vectors = {}
        for pixel in pixels:
            buffer, at = self._input_position(place, tap, pixel)
            vectors[pixel] = self.pairs.vector(k, buffer, at, self._per_block)
        for pair in range(tap.lanes):
            weights = self._pair_weights(k, place, replace(tap, lane=pair))
            for pixel, vector in vectors.items():
                scalar = self.pairs.operands(k, lane_of(vector, pair, self.lanes))
                self._add_products(k, sums, place, pixel, scalar, weights)

    def _multiply(self, k: KernelBuilder, sums: Local, place: Place, tap: Tap, pixels: list[Pixel]) -> None:
        """The products of a pair of channels, which is what a lane is here."""
        weights = self._pair_weights(k, place, tap)
        for pixel in pixels:
            buffer, at = self._input_position(place, tap, pixel)
            scalar = self.pairs.scalar(k, buffer, at + tap.lane * self.pairs.unit)
            self._add_products(k, sums, place, pixel, scalar, weights)

    def _add_products(
        self,
        k: KernelBuilder,
        sums: Local,
        place: Place,
        pixel: Pixel,
        scalar: list[Expr],
        weights: list[list[Expr]],
    ) -> None:
        """Those of one pair with the weights of all filters of the tile."""
        for b, weight in enumerate(weights):
            vector = place.vector(b, pixel) * self.lanes
            total = self.pairs.add(k, k.read_vector(sums, vector, self.lanes), scalar, weight)
            k.assign(sums, vector, total, self.lanes)

    def _pair_weights(self, k: KernelBuilder, place: Place, tap: Tap) -> list[list[Expr]]:
        first, pairs = self._pairs_position(place, tap), self.pairs
        return [pairs.weights(k, self.weights, first + b * pairs.step) for b in range(place.blocks)]

    def _input_position(self, place: Place, tap: Tap, pixel: Pixel) -> tuple[Buffer, Expr]:
        """Where the block of channels starts that a pixel reads at a tap."""
        storage, window = self.input.storage, self.shape.window
        assert storage is not None
        assert isinstance(storage.layout, Blocked)
        channels = self._first_channel(place) // self.input.block + tap.block
        y, x = window.row(place.y + pixel[0], tap.y), window.column(place.x + pixel[1], tap.x)
        n, channel, *spatial = self._input_index(place.n, channels, y, x)
        return storage.buffer, storage.layout.block_position(n, channel, spatial)

    def _pairs_position(self, place: Place, tap: Tap) -> Expr:
        """Where the weights of a pair for the tile's filters start."""
        (kh, kw), unit = self.shape.window.kernel, self.pairs.unit
        tile = place.group * -(-self.shape.filters // self.lanes) + place.block
        row = tap.block * self._per_block * (kh * kw) + (tap.y * kw + tap.x) * tap.lanes + tap.lane
        rows = -(-self.shape.channels // unit) * kh * kw
        return (tile * rows + row * place.blocks) * self.pairs.step

"""Convolution with weights of which whole vectors are zero: each block of filters skips input channels of its own, at each tap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.kernels.conv import ConvKernel, Place, Tap
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile, tiles_that_fit
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.kept import Kept, kept_rows, sparse_core, sparse_step_cycles
from graphopt.backends.kernels.tile_cost import axis_cycles, weights_cycles

TAP = 20.0
"""Cycles between the lists of two taps: where one ends is hard to predict."""


@dataclass(frozen=True, kw_only=True)
class SparseConvKernel(ConvKernel):
    """`weights` are the vectors that `kept` tells of, and the tile has one block of filters."""

    kept: Kept

    def _accumulate(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        kh, kw = self.shape.window.kernel
        block = place.group * -(-self.shape.filters // self.lanes) + place.block
        for ky, kx, pixels in self._taps(k, place):
            first, count = self.kept.span(k, k.bind(block * (kh * kw) + ky * kw + kx))
            with k.loop(count, "serial", "kept") as step:
                self._add_vector(k, sums, place, (ky, kx), pixels, first + step)

    def _add_vector(
        self,
        k: KernelBuilder,
        sums: Local,
        place: Place,
        at: tuple[Expr, Expr],
        pixels: list[tuple[int, int]],
        vector: Expr,
    ) -> None:
        """The products of one vector of weights with its input channel at every pixel of the tile."""
        weights = [k.bind(k.load_vector(self.weights, vector * self.lanes, self.lanes))]
        channel = self._first_channel(place) + self.kept.row(k, vector)
        for pixel, index in self._inputs(place, Tap(0, 1, 0, *at), channel, pixels):
            scalar = tirx.Broadcast(self.input.reader(k, index), self.lanes)
            self._add(k, sums, place, pixel, scalar, weights)


def sparse_tiles(shape: ConvShape, core: Core) -> Iterator[ConvTile]:
    """Those that fit into registers."""
    return (tile for tile in tiles_that_fit(shape, sparse_core(core)) if tile.blocks == 1)


def sparse_conv_cycles(shape: ConvShape, per_cent: int, tile: ConvTile, core: Core) -> float:
    """Estimated cycles of a convolution on one core, `per_cent` of whose vectors of weights are stored."""
    height, width = shape.window.output
    kept, blocks = kept_rows(shape.depth, per_cent), -(-shape.filters // core.lanes)
    between = TAP * (math.prod(shape.window.kernel) - 1) / kept

    def of_columns(columns: int, rows: int) -> float:
        return sparse_step_cycles(rows * columns, kept, core) + between

    def of_rows(rows: int) -> float:
        return axis_cycles(width, tile.columns, partial(of_columns, rows=rows))

    steps = shape.batch * shape.groups * blocks * kept * axis_cycles(height, tile.rows, of_rows)
    return steps + weights_cycles(shape.groups * blocks * core.lanes * kept)

"""Grouped convolution whose groups end within vectors of output channels.

Every vector of output channels reads the input channels of all groups that it touches, with zero weights where a
channel belongs to another group. So input and output stay blocked like those of any other convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.kernels.conv import ConvKernel, Place, Tap
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile, choose_tile
from graphopt.backends.kernels.core import Core

Array = np.ndarray[Any, Any]


def vector_groups(shape: ConvShape, lanes: int) -> Iterator[tuple[int, int]]:
    """First group, and number of groups, of every vector of output channels."""
    total = shape.groups * shape.filters
    for start in range(0, total, lanes):
        first, last = start // shape.filters, (min(start + lanes, total) - 1) // shape.filters
        yield first, last - first + 1


def ungrouped(shape: ConvShape, lanes: int) -> ConvShape:
    """One group with all filters, each reading as many channels as the vector that touches most groups."""
    most = max(count for _, count in vector_groups(shape, lanes))
    return replace(shape, groups=1, filters=shape.groups * shape.filters, channels=most * shape.channels)


def ungrouped_weights(weights: Array, shape: ConvShape, lanes: int) -> Array:
    """`[filters * groups, channels, kh, kw]` for the shape of `ungrouped`, zero outside a filter's own group."""
    whole = ungrouped(shape, lanes)
    result = np.zeros((whole.filters, whole.channels, *weights.shape[2:]), weights.dtype)
    for vector, (first, _) in enumerate(vector_groups(shape, lanes)):
        for row in range(vector * lanes, min((vector + 1) * lanes, whole.filters)):
            start = (row // shape.filters - first) * shape.channels
            result[row, start : start + shape.channels] = weights[row]
    return result


def choose_grouped_tile(shape: ConvShape, core: Core) -> ConvTile:
    """One vector of output channels: neighbouring ones read different inputs."""
    return choose_tile(replace(shape, filters=core.lanes), core)


@dataclass(frozen=True)
class GroupedConvKernel(ConvKernel):
    """`shape` is the one that `ungrouped` gives for `grouped`; tiles hold one vector of output channels."""

    grouped: ConvShape | None = None

    def _accumulate(self, k: KernelBuilder, sums: Local, place: Place) -> None:
        first, last = self._touched_groups(place.block)
        assert self.grouped is not None
        count = k.bind((last - first + 1) * self.grouped.channels)
        for ky, kx, pixels in self._taps(k, place):
            with k.loop(count, "serial", "channel") as channel:
                block, lane = tirx.op.floordiv(channel, self.lanes), tirx.op.floormod(channel, self.lanes)
                self._multiply(k, sums, place, Tap(block, self._lanes_of(block), lane, ky, kx), pixels)

    def _lanes_of(self, block: Expr) -> Expr:
        """The channels in a block, of which the last one may have fewer."""
        if self.shape.channels % self.lanes == 0:
            return self.lanes
        rest = self.shape.channels - block * self.lanes
        return tirx.op.min(tirx.const(self.lanes, "int32"), rest)

    def _first_channel(self, place: Place) -> Expr:
        assert self.grouped is not None
        return self._touched_groups(place.block)[0] * self.grouped.channels

    def _touched_groups(self, vector: Expr) -> tuple[Expr, Expr]:
        """The first and the last group that a vector of output channels touches."""
        assert self.grouped is not None
        filters, total = self.grouped.filters, self.grouped.groups * self.grouped.filters
        start = vector * self.lanes
        end = tirx.op.min(start + self.lanes, tirx.const(total, "int32")) - 1
        return tirx.op.floordiv(start, filters), tirx.op.floordiv(end, filters)

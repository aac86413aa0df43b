"""Convolutions: as tiled products of filters and gathered inputs, or one output a thread where a group has few filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.product import TiledProduct
from graphopt.backends.cuda.tensor_elements import widened
from graphopt.backends.cuda.tensor_tiles import Chip, chip_of
from graphopt.backends.cuda.tiles import choose_tile
from graphopt.backends.kernels.conv_rows import Geometry, Weight
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.context import storage_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.row_convolutions import Place, RowConvolutions
from graphopt.backends.tensor import Tensor

Store = Callable[[KernelBuilder, Sequence[Expr], Expr], None]
"""Stores a sum, given its index `[n, output channel, spatial...]`."""

FEW_FILTERS = 4
"""Filters of a group up to which a tile would be mostly empty."""


@dataclass(frozen=True)
class DeviceConvolutions(RowConvolutions):
    """Kernels that together compute one node, and read its input where it lies."""

    def emit(self, parts: Sequence[tuple[Geometry, Weight, Place]]) -> None:
        ctx = self.ctx
        accumulator, x = accumulator_of(self.input.dtype), ctx.cheap(self.input)
        x = ctx.in_memory(x)
        bias = None if self.bias is None else ctx.strided(self.bias)
        after = epilogue(ctx, self.node, ctx.lanes)
        out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, ctx.lanes))
        with ctx.kernel("conv") as k:
            for geometry, weight, place in parts:

                def store(k: KernelBuilder, index: Sequence[Expr], value: Expr, place: Place = place) -> None:
                    n, channel, *spatial = index
                    if bias is not None:
                        value = value + cast(bias.reader(k, [channel]), accumulator)
                    after.store(k, out, [n, channel, *place(spatial)], cast(value, after.dtype))

                convolution = _Convolution(geometry, x, weight, accumulator, chip_of(ctx.core))
                if not convolution.results:
                    continue
                if geometry.filters <= FEW_FILTERS or not geometry.depth:
                    convolution.emit_outputs(k, store)
                else:
                    convolution.product(store, partial(ctx.buffer, dtype=accumulator)).emit(k)


@dataclass(frozen=True)
class _Convolution:
    """One convolution, of whatever stores its sums."""

    geometry: Geometry
    input: Tensor
    weight: Weight
    accumulator: str
    chip: Chip

    @property
    def results(self) -> int:
        geometry = self.geometry
        return geometry.batch * geometry.groups * geometry.filters * math.prod(self._spatial)

    @property
    def _spatial(self) -> list[int]:
        return [axis.output for axis in self.geometry.axes]

    def emit_outputs(self, k: KernelBuilder, store: Store) -> None:
        """A thread for every output."""
        geometry = self.geometry
        shape = [geometry.batch, geometry.groups * geometry.filters, *self._spatial]
        taps = [axis.kernel for axis in geometry.axes]
        with k.loop(math.prod(shape), "independent", "output") as number:
            n, output, *place = (k.bind(i) for i in split_index(number, shape))
            group = k.bind(tirx.op.floordiv(output, geometry.filters))
            total = k.local(1, self.accumulator)
            k.assign(total, 0, const(0, self.accumulator))
            with k.loop(geometry.channels, "serial", "channel") as channel, k.loop(math.prod(taps)) as tap:
                at = split_index(tap, taps)
                value = self._input(k, n, group, channel, at, place)
                weight = widened(self.weight(k, output, channel, at), self.accumulator)
                k.assign(total, 0, total[0] + weight * value)
            store(k, [n, output, *place], total[0])

    def product(self, store: Store, memory: Callable[[int], Buffer]) -> TiledProduct:
        """Filters times depth by depth times pixels of all images; the batch are the groups."""
        geometry = self.geometry
        spatial = self._spatial
        depths = [geometry.channels, *(axis.kernel for axis in geometry.axes)]
        extents = Extents(
            geometry.groups, geometry.filters, geometry.batch * math.prod(spatial), geometry.depth
        )

        def left(k: KernelBuilder, group: Expr, row: Expr, depth: Expr) -> Expr:
            channel, *taps = split_index(depth, depths)
            return widened(self.weight(k, group * geometry.filters + row, channel, taps), self.accumulator)

        def right(k: KernelBuilder, group: Expr, column: Expr, depth: Expr) -> Expr:
            channel, *taps = split_index(depth, depths)
            n, *place = split_index(column, [geometry.batch, *spatial])
            return self._input(k, n, group, channel, taps, place)

        def keep(k: KernelBuilder, group: Expr, row: Expr, column: Expr, value: Expr) -> None:
            n, *place = (
                i if isinstance(i, int) else k.bind(i)
                for i in split_index(column, [geometry.batch, *spatial])
            )
            store(k, [n, k.bind(group * geometry.filters + row), *place], value)

        tile, parts = choose_tile(self.chip, extents, np.dtype(self.accumulator).itemsize)
        return TiledProduct(extents, tile, parts, self.accumulator, left, right, keep, memory)

    def _input(
        self,
        k: KernelBuilder,
        n: Expr,
        group: Expr,
        channel: Expr,
        taps: Sequence[Expr],
        place: Sequence[Expr],
    ) -> Expr:
        """What an output reads through a tap; zero where that is padding."""
        geometry = self.geometry
        source = [axis.source(i, tap) for axis, i, tap in zip(geometry.axes, place, taps, strict=True)]
        tests = [
            test
            for axis, i in zip(geometry.axes, source, strict=True)
            if not axis.is_inside
            for test in (i >= 0, i < axis.input)
        ]
        index = [n, group * geometry.channels + channel, *source]

        def read() -> Expr:
            return widened(self.input.reader(k, index), self.accumulator)

        return k.guard(tirx.op.all(*tests), read, const(0, self.accumulator)) if tests else read()

"""3x3 convolution of stride 1 by Winograd's minimal filtering: fewer multiplications, as one product for each point.

Tiles of the input are transformed into the workspace, a chunk of groups of tiles at a time so that it stays in the cache. For
every point a group is multiplied by that point's weights; the products are transformed back on the way to the output. Both
phases give a thread the same groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.artifacts.coding import Origin
from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.combine import combine
from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import (
    GemmTile,
    Segment,
    Store,
    for_each_segment,
    gemm_cycles,
    segments,
)
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.lanes import lane_of
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.tile_cost import weights_cycles
from graphopt.backends.kernels.window import split_index
from graphopt.backends.kernels.winograd_transforms import TAPS, Transforms
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Tensor
from graphopt_runtime.expansion import Expansion

PARALLEL_MACS = 400_000
"""Multiply-adds of the direct convolution below which it stays on one thread."""

INPUT_TRANSFORM, OUTPUT_TRANSFORM = 5.0, 4.5
"""Cycles a vector and product of the transforms, measured on Zen 5."""


@dataclass(frozen=True)
class WinogradShape:
    """The convolution, the transforms, and the register tile: `tile.rows` image tiles x `tile.vectors` of filters."""

    conv: ConvShape
    transforms: Transforms
    tile: GemmTile
    core: Core

    @property
    def lanes(self) -> int:
        return self.core.lanes

    @property
    def products(self) -> int:
        """Points in both directions."""
        return self.transforms.points**2

    @property
    def grid(self) -> tuple[int, int, int]:
        """Images, and rows and columns of tiles in each."""
        height, width = self.conv.window.output
        side = self.transforms.tile
        return self.conv.batch, -(-height // side), -(-width // side)

    @property
    def tiles(self) -> int:
        return math.prod(self.grid)

    @property
    def channel_blocks(self) -> int:
        return -(-self.conv.channels // self.lanes)

    @property
    def filter_blocks(self) -> int:
        return -(-self.conv.filters // self.lanes)

    @property
    def groups(self) -> int:
        return -(-self.tiles // self.tile.rows)

    @property
    def group_size(self) -> int:
        """Elements of the transformed input of one group of tiles."""
        return self.products * self.channel_blocks * self.tile.rows * self.lanes

    @property
    def groups_in_chunk(self) -> int:
        """Groups held at a time, spread evenly over the chunks: as much transformed input as the second-level caches of two cores hold."""
        most = max(3 * self.core.cache // 2 // (4 * self.group_size), 2)
        chunks = -(-self.groups // most)
        return -(-self.groups // chunks)

    @property
    def workspace_size(self) -> int:
        """Elements of the workspace."""
        return self.groups_in_chunk * self.group_size


def packed_size(shape: WinogradShape) -> int:
    """Elements of packed weights."""
    return shape.products * shape.filter_blocks * shape.channel_blocks * shape.lanes**2


def pack_winograd(weights: np.ndarray[Any, Any], shape: WinogradShape) -> Origin:
    """`[filters, channels, 3, 3]` as `[filter tile, tap, channel, tile vector]`, flat, whose taps become points; the last tile may be
    smaller."""
    lanes, taps = shape.lanes, TAPS * TAPS
    padded = np.zeros((taps, shape.filter_blocks * lanes, shape.channel_blocks * lanes), np.float32)
    padded[:, : len(weights), : weights.shape[1]] = np.moveaxis(
        weights.reshape(*weights.shape[:2], taps), 2, 0
    )
    parts, runs = [], []
    for part in segments(padded.shape[1], shape.tile.vectors * lanes):
        chosen = padded[:, part.start : part.start + part.repeat * part.extent]
        blocked = chosen.reshape(taps, part.repeat, part.extent, -1)
        parts.append(blocked.transpose(1, 0, 3, 2).reshape(-1))
        runs.append((part.repeat, part.extent * padded.shape[2]))
    transforms = shape.transforms
    return Origin(np.concatenate(parts), transforms.weights, Expansion(transforms.points, TAPS, runs))


@dataclass(frozen=True)
class WinogradKernel:
    """Emits one convolution. `input` is blocked; `weights` are packed by `pack_winograd`, `bias` to whole vectors."""

    shape: WinogradShape
    input: Tensor
    weights: Buffer
    bias: Buffer | None
    workspace: Buffer
    store: Store

    def emit(self, k: KernelBuilder) -> None:
        shape = self.shape
        per_chunk = shape.groups_in_chunk
        filters = segments(shape.filter_blocks, shape.tile.vectors)
        filter_tiles = sum(part.repeat for part in filters)
        with k.loop(-(-shape.groups // per_chunk), "serial", "chunk") as chunk:
            self._for_each_group(k, chunk, shape.channel_blocks, partial(self._transform_group, k))

            def multiply(group: Expr, slot: Expr, filter_tile: Expr) -> None:
                for_each_segment(k, filters, filter_tile, partial(self._multiply, k, group, slot))

            self._for_each_group(k, chunk, filter_tiles, multiply)

    def _for_each_group(
        self, k: KernelBuilder, chunk: Expr, units: int, emit: Callable[[Expr, Expr, Expr], None]
    ) -> None:
        """In parallel over the groups of a chunk and `units` units of each; `emit` gets the group, its slot in the
        workspace, and the unit."""
        per_chunk = self.shape.groups_in_chunk
        kind = loop_kind(self.shape.conv.macs, PARALLEL_MACS)
        with k.loop(per_chunk * units, kind, "unit") as index:
            slot, unit = (k.bind(i) for i in split_index(index, [per_chunk, units]))
            group = k.bind(chunk * per_chunk + slot)
            with k.when(self.shape.groups % per_chunk == 0 or group < self.shape.groups):
                emit(group, slot, unit)

    def _for_each_tile(
        self, k: KernelBuilder, group: Expr, emit: Callable[[Expr, Expr, Expr, Expr], None]
    ) -> None:
        """`emit` gets the tile's position in its group, its image, and its first output row and column."""
        shape, side = self.shape, self.shape.transforms.tile
        with k.loop(shape.tile.rows, "serial", "tile") as position:
            tile = k.bind(group * shape.tile.rows + position)
            with k.when(shape.tiles % shape.tile.rows == 0 or tile < shape.tiles):
                n, row, column = split_index(tile, shape.grid)
                emit(position, n, k.bind(row * side), k.bind(column * side))

    def _transform_group(self, k: KernelBuilder, group: Expr, slot: Expr, channel_block: Expr) -> None:
        shape, lanes = self.shape, self.shape.lanes
        points, matrix = shape.transforms.points, shape.transforms.input

        def transform(position: Expr, n: Expr, y: Expr, x: Expr) -> None:
            half = k.local(shape.products * lanes, "float32")
            with k.loop(points, "serial", "column") as column:
                data = [self._load(k, n, channel_block, y + row, x + column) for row in range(points)]
                for i, value in enumerate(combine(k, matrix, data, lanes)):
                    k.assign(half, (i * points + column) * lanes, value, lanes)
            with k.loop(points, "serial", "row") as row:
                data = [k.bind(k.read_vector(half, (row * points + j) * lanes, lanes)) for j in range(points)]
                for j, value in enumerate(combine(k, matrix, data, lanes)):
                    at = self._transformed(slot, row * points + j, channel_block) + position * lanes
                    k.store_vector(self.workspace, at, value, lanes)

        self._for_each_tile(k, group, transform)

    def _transformed(self, slot: Expr, product: Expr, channel_block: Expr) -> Expr:
        """Where the vectors of one point and channel block of a group start in the workspace."""
        shape = self.shape
        return ((slot * shape.products + product) * shape.channel_blocks + channel_block) * (
            shape.tile.rows * shape.lanes
        )

    def _load(self, k: KernelBuilder, n: Expr, block: Expr, y: Expr, x: Expr) -> Expr:
        """A vector of the input by its padded position; zero outside of the image."""
        assert self.input.storage is not None
        layout, buffer = self.input.storage.layout, self.input.storage.buffer
        assert isinstance(layout, Blocked)
        vertical, horizontal = self.shape.conv.window.axes
        row, column = y - vertical.pad, x - horizontal.pad
        conditions = [*self._inside(row, vertical), *self._inside(column, horizontal)]
        at = layout.block_position(n, block, [row, column])
        if not conditions:
            return k.bind(k.load_vector(buffer, at, self.shape.lanes))
        zero = tirx.Broadcast(const(0.0, "float32"), self.shape.lanes)
        return k.bind(
            k.guard(tirx.op.all(*conditions), lambda: k.load_vector(buffer, at, self.shape.lanes), zero)
        )

    def _inside(self, position: Expr, axis: Axis) -> list[Expr]:
        """What must hold for an input to exist, as far as tiles reach beyond."""
        side = self.shape.transforms.tile
        last = -(-axis.output // side) * side + TAPS - 2 - axis.pad
        return [
            *([position >= 0] if axis.pad > 0 else []),
            *([position < axis.input] if last >= axis.input else []),
        ]

    def _multiply(self, k: KernelBuilder, group: Expr, slot: Expr, filters: Segment, block: Expr) -> None:
        shape, lanes, vectors = self.shape, self.shape.lanes, filters.extent
        size = vectors * shape.tile.rows * lanes
        products = k.local(shape.products * size, "float32")
        block = k.bind(block)
        with k.loop(shape.products, "serial", "product") as product:
            sums = k.local(size, "float32")
            zero = tirx.Broadcast(const(0.0, "float32"), lanes)
            for at in range(0, size, lanes):
                k.assign(sums, at, zero, lanes)
            with k.loop(shape.channel_blocks, "serial", "block") as channel_block:
                inputs = k.bind(self._transformed(slot, product, channel_block))
                channel = k.bind(
                    (block * shape.products + product * vectors) * shape.channel_blocks
                    + channel_block * vectors
                )
                self._multiply_block(k, sums, inputs, channel * lanes, vectors)
            for at in range(0, size, lanes):
                k.assign(products, product * size + at, k.read_vector(sums, at, lanes), lanes)
        with k.loop(vectors, "serial", "vector") as vector:
            self._finish(k, group, products, size, vector, block + vector)

    def _multiply_block(
        self, k: KernelBuilder, sums: Local, inputs: Expr, weights: Expr, vectors: int
    ) -> None:
        """Multiply a block of channels of every tile of the group by their weights, which start at row `weights`."""
        lanes, rows = self.shape.lanes, self.shape.tile.rows
        if self.shape.core.by_lane:
            held = [k.bind(k.load_vector(self.workspace, inputs + row * lanes, lanes)) for row in range(rows)]
            for lane in range(lanes):
                scalars = [partial(lane_of, vector, lane, lanes) for vector in held]
                self._step(k, sums, scalars, (weights + lane * vectors) * lanes, vectors)
            return
        with k.loop(lanes, "serial", "channel") as lane:
            scalars = [partial(self._broadcast, k, inputs + lane + row * lanes) for row in range(rows)]
            self._step(k, sums, scalars, (weights + lane * vectors) * lanes, vectors)

    def _broadcast(self, k: KernelBuilder, at: Expr) -> Expr:
        return tirx.Broadcast(k.load(self.workspace, at), self.shape.lanes)

    def _step(
        self,
        k: KernelBuilder,
        sums: Local,
        scalars: Sequence[Callable[[], Expr]],
        weights: Expr,
        vectors: int,
    ) -> None:
        """Multiply one channel of every tile of the group by its weights for all filters of the register tile."""
        lanes, rows = self.shape.lanes, self.shape.tile.rows
        loaded = [k.bind(k.load_vector(self.weights, weights + v * lanes, lanes)) for v in range(vectors)]
        for row, make in enumerate(scalars):
            scalar = make()
            for v, vector in enumerate(loaded):
                at = (v * rows + row) * lanes
                k.assign(sums, at, k.read_vector(sums, at, lanes) + scalar * vector, lanes)

    def _finish(
        self, k: KernelBuilder, group: Expr, products: Local, size: int, vector: Expr, block: Expr
    ) -> None:
        """Transform one vector of filters of every tile of the group back, and store it."""
        shape, lanes = self.shape, self.shape.lanes
        points, side, matrix = shape.transforms.points, shape.transforms.tile, shape.transforms.output
        bias = self._bias(k, block)

        def finish(position: Expr, n: Expr, y: Expr, x: Expr) -> None:
            first = (vector * shape.tile.rows + position) * lanes
            half = k.local(side * points * lanes, "float32")
            with k.loop(points, "serial", "column") as j:
                data = [
                    k.bind(k.read_vector(products, first + (i * points + j) * size, lanes))
                    for i in range(points)
                ]
                for i, value in enumerate(combine(k, matrix, data, lanes)):
                    k.assign(half, (i * points + j) * lanes, value, lanes)
            with k.loop(side, "serial", "row") as i:
                data = [k.bind(k.read_vector(half, (i * points + j) * lanes, lanes)) for j in range(points)]
                results = k.local(side * lanes, "float32")
                for j, value in enumerate(combine(k, matrix, data, lanes)):
                    k.assign(results, j * lanes, value + bias, lanes)
                self._store_row(k, results, n, block, y + i, x)

        self._for_each_tile(k, group, finish)

    def _bias(self, k: KernelBuilder, block: Expr) -> Expr:
        lanes = self.shape.lanes
        if self.bias is None:
            return tirx.Broadcast(const(0.0, "float32"), lanes)
        return k.bind(k.load_vector(self.bias, block * lanes, lanes))

    def _store_row(self, k: KernelBuilder, results: Local, n: Expr, block: Expr, y: Expr, x: Expr) -> None:
        """Store the outputs of one row of a tile that lie within the image."""
        side, lanes = self.shape.transforms.tile, self.shape.lanes
        height, width = self.shape.conv.window.output
        with k.when(height % side == 0 or y < height):
            for j in range(side):
                inside = j == 0 or width % side == 0 or x + j < width
                with k.when(inside), k.loop(lanes, "vector", "lane") as lane:
                    self.store(k, [n, block * lanes + lane, y, x + j], results[lane + j * lanes])


def winograd_applies(shape: ConvShape) -> bool:
    """Whether the convolution has the form that the algorithm is for."""
    window = shape.window
    return (
        shape.groups == 1
        and window.kernel == (TAPS, TAPS)
        and window.strides == (1, 1)
        and window.dilations == (1, 1)
    )


def winograd_cycles(shape: WinogradShape) -> float:
    """Estimated cycles on one core."""
    conv, channels = shape.conv, shape.channel_blocks * shape.lanes
    product = gemm_cycles(shape.tiles, conv.filters, channels, shape.tile, shape.core)
    moving = INPUT_TRANSFORM * shape.channel_blocks + OUTPUT_TRANSFORM * shape.filter_blocks
    weights = weights_cycles(shape.products * conv.filters * conv.channels)
    return shape.products * (product + shape.tiles * moving) + weights

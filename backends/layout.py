"""How the elements of a tensor lie in a flat buffer: strided (any view of row-major data) or channel-blocked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a dense row-major array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


@dataclass(frozen=True)
class Strided:
    """Element `index` lies at `offset + sum(index * strides)`."""

    strides: tuple[int, ...]
    offset: int = 0

    def position(self, index: Sequence[Expr]) -> Expr:
        position: Expr = self.offset
        for i, stride in zip(index, self.strides, strict=True):
            if stride:
                position = position + i * stride
        return position

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def logical(self, index: Sequence[Expr]) -> list[Expr]:
        return list(index)

    def size(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def is_dense(self, shape: tuple[int, ...]) -> bool:
        """Whether the elements are those of a row-major array without gaps (the offset may differ from 0)."""
        wanted = row_major_strides(shape)
        return all(d == 1 or s == w for d, s, w in zip(shape, self.strides, wanted, strict=True))

    def reshaped(self, shape: Sequence[int], wanted: Sequence[int]) -> Strided | None:
        """The same elements of a tensor of `shape`, in row-major order, as one of shape `wanted`; None where no strides do."""
        if 0 in shape:
            return Strided(row_major_strides(wanted), self.offset)
        runs = self._runs(shape)
        extent, stride = runs.pop()
        strides = []
        for size in reversed(wanted):
            if size == 1:
                strides.append(0)
                continue
            if extent == 1 and runs:
                extent, stride = runs.pop()
            if extent % size:
                return None
            strides.append(stride)
            extent, stride = extent // size, stride * size
        return Strided(tuple(reversed(strides)), self.offset)

    def _runs(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Extents and strides of a tensor, neighbouring axes joined where their elements are evenly spaced."""
        runs = [(1, 1)]
        for size, stride in zip(shape, self.strides, strict=True):
            extent, outer = runs[-1]
            if size == 1:
                continue
            if extent == 1:
                runs[-1] = (size, stride)
            elif outer == stride * size:
                runs[-1] = (extent * size, stride)
            else:
                runs.append((size, stride))
        return runs


@dataclass(frozen=True)
class Blocked:
    """`N C spatial...` stored as `N C/block spatial... block`. Lanes beyond C hold zeros."""

    shape: tuple[int, ...]
    block: int

    def position(self, index: Sequence[Expr]) -> Expr:
        n, c, *spatial = index
        block, lane = _floordiv(c, self.block), _floormod(c, self.block)
        outer = [n, 0, *spatial, c] if self.shape[1] <= self.block else [n, block, *spatial, lane]
        strides = row_major_strides(self.physical_shape(self.shape))
        position: Expr = 0
        for i, stride in zip(outer, strides, strict=True):
            position = position + i * stride
        return position

    def block_position(self, n: Expr, block: Expr, spatial: Sequence[Expr]) -> Expr:
        """Where the vector of one channel block starts."""
        strides = row_major_strides(self.physical_shape(self.shape))
        position: Expr = 0
        for i, stride in zip([n, block, *spatial], strides, strict=False):
            position = position + i * stride
        return position

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n, c, *spatial = shape
        return (n, -(-c // self.block), *spatial, self.block)

    def logical(self, index: Sequence[Expr]) -> list[Expr]:
        n, outer, *spatial, lane = index
        return [n, outer * self.block + lane, *spatial]

    def size(self, shape: tuple[int, ...]) -> int:
        return math.prod(self.physical_shape(shape))

    def part(self, shape: tuple[int, ...], first: int) -> Blocked:
        """The layout of the channels from `first`, a multiple of the block."""
        return PartOfBlocked(shape, self.block, self.shape, first)

    def with_pixels(self, shape: tuple[int, ...]) -> Blocked | None:
        """The layout of the same elements with other spatial axes, as many pixels; None where no layout says it."""
        return Blocked(shape, self.block)

    @property
    def own(self) -> int:
        """The block of a copy."""
        return self.block

    @property
    def padded_lanes(self) -> int:
        """How many lanes of the last block lie beyond the channels."""
        return -self.shape[1] % self.block


@dataclass(frozen=True)
class PartOfBlocked(Blocked):
    """The channels from `first` of a blocked tensor of shape `whole`; `first` is a multiple of the block."""

    whole: tuple[int, ...]
    first: int

    def position(self, index: Sequence[Expr]) -> Expr:
        n, c, *spatial = index
        return Blocked(self.whole, self.block).position([n, c + self.first, *spatial])

    def part(self, shape: tuple[int, ...], first: int) -> PartOfBlocked:
        return PartOfBlocked(shape, self.block, self.whole, self.first + first)

    def with_pixels(self, shape: tuple[int, ...]) -> None:
        return None

    def block_position(self, n: Expr, block: Expr, spatial: Sequence[Expr]) -> Expr:
        return Blocked(self.whole, self.block).block_position(n, block + self.first // self.block, spatial)


CHUNK = 8
"""Channels of which pixels have a multiple where all lie together, so that copies of 16 bytes of halves stay aligned."""


def whole_chunks(channels: int, chunk: int = CHUNK) -> int:
    """Lanes that hold some channels and end with a chunk."""
    return -(-channels // chunk) * chunk


@dataclass(frozen=True)
class ChannelsLast(Blocked):
    """`N spatial... block`: every pixel is one block. The channels of this tensor are those from `first`; of the `lanes` lanes that belong to
    it, those beyond its channels hold zeros. Any other channels are those of neighbours, of which some tensor is the whole."""

    first: int
    lanes: int

    @classmethod
    def whole(cls, shape: tuple[int, ...], block: int) -> ChannelsLast:
        """The layout of a tensor that has its pixels for itself."""
        return cls(shape, block, 0, block)

    def position(self, index: Sequence[Expr]) -> Expr:
        n, c, *spatial = index
        strides = row_major_strides((self.shape[0], *self.shape[2:], self.block))
        position: Expr = self.first
        for i, stride in zip([n, *spatial, c], strides, strict=True):
            position = position + i * stride
        return position

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n, _, *spatial = shape
        return (n, *spatial, self.lanes)

    def logical(self, index: Sequence[Expr]) -> list[Expr]:
        n, *spatial, lane = index
        return [n, lane, *spatial]

    def size(self, shape: tuple[int, ...]) -> int:
        n, _, *spatial = shape
        return math.prod((n, *spatial, self.block))

    def part(self, shape: tuple[int, ...], first: int) -> ChannelsLast:
        """The layout of the channels from `first`; to the last of them belong the zeros behind."""
        is_last = first + shape[1] == self.shape[1]
        lanes = shape[1] + self.padded_lanes if is_last else shape[1]
        return ChannelsLast(shape, self.block, self.first + first, lanes)

    def with_pixels(self, shape: tuple[int, ...]) -> ChannelsLast:
        return ChannelsLast(shape, self.block, self.first, self.lanes)

    def is_aligned(self, chunk: int) -> bool:
        """Whether the channels of every pixel begin with a chunk of memory."""
        return self.first % chunk == self.block % chunk == 0

    @property
    def own(self) -> int:
        return self.lanes

    @property
    def padded_lanes(self) -> int:
        return self.lanes - self.shape[1]


Layout = Strided | Blocked


def dense(shape: Sequence[int]) -> Strided:
    """The row-major layout of `shape`."""
    return Strided(row_major_strides(shape))


def _floordiv(value: Expr, divisor: int) -> Expr:
    return value // divisor if isinstance(value, int) else tirx.op.floordiv(value, divisor)


def _floormod(value: Expr, divisor: int) -> Expr:
    return value % divisor if isinstance(value, int) else tirx.op.floormod(value, divisor)

"""Pooling: every thread computes outputs that are neighbours in memory, of the largest a few pixels of a row, which share inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.instructions import LARGER
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.pool_general import GeneralPool, Output, Store

PIXELS = (4, 2)
"""In a row, by one thread."""

ENOUGH = 65536
"""Threads that a GPU needs to have enough reads under way."""

SHORTEST = 8
"""Channels of a run, where those are counted that are left."""

MOST_TAPS = 64
"""Of a window that is written out."""


class DevicePool(GeneralPool):
    """A GeneralPool whose loop over outputs is one grid, in the order of memory."""

    def outputs(self, k: KernelBuilder, body: Output) -> None:
        assert isinstance(k, DeviceBuilder)
        blocked = self.input.is_blocked
        n, channels, *spatial = [*self.input.shape[:2], *(axis.output for axis in self.axes)]
        shape = [n, *spatial, channels] if blocked else [n, channels, *spatial]

        def element(k: DeviceBuilder, place: Sequence[Expr]) -> None:
            body(k, [place[0], place[-1], *place[1:-1]] if blocked else place)

        choose_runs(k, shape, self._size, element).store(k, element)

    def largest(self, k: KernelBuilder, store: Store) -> bool:
        """Windows are written out where channels lie together: the largest of each column, then those of each row."""
        assert isinstance(k, DeviceBuilder)
        if not self.input.is_blocked or not all(map(_clamps, self.axes)) or self.input.dtype not in LARGER:
            return False
        if math.prod(axis.kernel for axis in self.axes) > MOST_TAPS:
            return False
        pixels, *_ = [*(each for each in PIXELS if self._suits(each)), 1]
        *outer, last = self.axes
        n, channels = self.input.shape[:2]
        shape = [n, *(axis.output for axis in outer), last.output // pixels, channels]

        def element(k: DeviceBuilder, place: Sequence[Expr]) -> None:
            n, *rows, block, channel = place
            columns: dict[int, Expr] = {}

            def column(step: int) -> Expr:
                if step not in columns:
                    at = _clamped(block * (pixels * last.stride) + (step - last.pad), last)
                    taps = np.ndindex(*(axis.kernel for axis in outer))
                    sources = (
                        [_clamped(axis.source(i, t), axis) for axis, i, t in zip(outer, rows, each, strict=True)]
                        for each in taps
                    )
                    values = [k.bind(self.input.reader(k, [n, channel, *source, at])) for source in sources]
                    columns[step] = self._largest_of(k, values)
                return columns[step]

            for pixel in range(pixels):
                values = [column(pixel * last.stride + tap * last.dilation) for tap in range(last.kernel)]
                store(k, [n, channel, *rows, block * pixels + pixel], self._largest_of(k, values))

        choose_runs(k, shape, self._size, element).store(k, element)
        return True

    @property
    def _size(self) -> int:
        return np.dtype(self.input.dtype).itemsize

    def _largest_of(self, k: DeviceBuilder, values: Sequence[Expr]) -> Expr:
        function, dtype = LARGER[self.input.dtype], self.input.dtype
        return reduce(lambda a, b: k.bind(k.call(function, dtype, a, b)), values)

    def _suits(self, pixels: int) -> bool:
        """Whether rows are whole numbers of so many pixels, and enough threads are left."""
        results = math.prod(self.input.shape[:2]) * math.prod(axis.output for axis in self.axes)
        return self.axes[-1].output % pixels == 0 and results >= ENOUGH * SHORTEST * pixels


def _clamps(axis: Axis) -> bool:
    """Whether a window has the input nearest to every tap of it that does not exist."""
    last = (axis.output - 1) * axis.stride - axis.pad
    return axis.is_inside or (axis.dilation == 1 and 0 <= axis.pad < axis.kernel and last < axis.input)


def _clamped(i: Expr, axis: Axis) -> Expr:
    """The nearest input that exists."""
    if axis.is_inside or isinstance(i, int):
        return i if axis.is_inside else min(max(i, 0), axis.input - 1)
    bound = const(axis.input - 1, "int32")
    return tirx.op.max(const(0, "int32"), tirx.op.min(bound, i))

"""Pooling: every thread computes outputs that are neighbours in memory, of the largest a few pixels, which share inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.instructions import LARGER_OF
from graphopt.backends.cuda.pixels import suitable_blocks
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.pool_general import GeneralPool, Output, Store

BLOCKS = ((4, 4), (2, 4), (1, 8), (1, 4), (1, 2))
"""By one thread, the fastest first."""

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
        if not self.input.is_blocked or not all(map(_clamps, self.axes)) or self.input.dtype not in LARGER_OF:
            return False
        if len(self.axes) > 2 or math.prod(axis.kernel for axis in self.axes) > MOST_TAPS:
            return False
        images, channels = self.input.shape[:2]
        *outer, last = self.axes
        rows, pixels = suitable_blocks(self.axes, images * channels, BLOCKS)[0]

        def element(k: DeviceBuilder, place: Sequence[Expr]) -> None:
            n, *first, group, channel = place
            first = [i * rows for i in first]
            columns: dict[int, list[Expr]] = {}
            for pixel in range(pixels):
                taps = [pixel * last.stride + tap * last.dilation for tap in range(last.kernel)]
                for step in taps:
                    if step not in columns:
                        at = _clamped(group * (pixels * last.stride) + (step - last.pad), last)
                        columns[step] = self._column(k, rows, [n, channel], first, at)
                for row in range(rows):
                    value = self._largest_of(k, [columns[step][row] for step in taps])
                    store(k, [n, channel, *(i + row for i in first), group * pixels + pixel], value)

        shape = [images, *(axis.output // rows for axis in outer), last.output // pixels, channels]
        choose_runs(k, shape, self._size, element).store(k, element)
        return True

    def _column(
        self, k: DeviceBuilder, rows: int, channel: Sequence[Expr], first: Sequence[Expr], at: Expr
    ) -> list[Expr]:
        """The largest inputs of a column of pixels, for each of so many rows from the `first` one."""
        if len(self.axes) == 1:
            return [k.bind(self.input.reader(k, [*channel, at]))]
        [axis, _], inputs = self.axes, dict[int, Expr]()
        windows = [
            [row * axis.stride + tap * axis.dilation for tap in range(axis.kernel)] for row in range(rows)
        ]
        for step in sorted({step for window in windows for step in window}):
            source = _clamped(first[0] * axis.stride + (step - axis.pad), axis)
            inputs[step] = k.bind(self.input.reader(k, [*channel, source, at]))
        return [self._largest_of(k, [inputs[step] for step in window]) for window in windows]

    @property
    def _size(self) -> int:
        return np.dtype(self.input.dtype).itemsize

    def _largest_of(self, k: DeviceBuilder, values: Sequence[Expr]) -> Expr:
        function, dtype = LARGER_OF[self.input.dtype], self.input.dtype
        return reduce(lambda a, b: k.bind(k.call(function, dtype, a, b)), values)


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

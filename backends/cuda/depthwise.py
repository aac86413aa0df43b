"""Depthwise convolutions: a thread for a run of neighbouring channels of a few pixels, which share inputs and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.pixels import suitable_blocks
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.conv_rows import Geometry

PIXELS = (4, 2)
"""Of one row, by one thread: two rows are faster where channels lie together, and slower where results are stored channel by channel."""

Read = Callable[[KernelBuilder, Sequence[Expr]], Expr]


def emit_depthwise(
    k: KernelBuilder,
    geometry: Geometry,
    size: int,
    dtype: str,
    read: Read,
    weight: Read,
    store: Callable[..., None],
) -> None:
    """`read` takes `[n, channel, place...]` in the input, which may be outside of it; `weight` takes `[tap, channel]`; `store` takes the
    builder, an index of the result, whose elements have `size` bytes, and a sum of `dtype`."""
    assert isinstance(k, DeviceBuilder)
    blocks = [(1, pixels) for pixels in PIXELS]
    for _, pixels in suitable_blocks(geometry.axes, geometry.batch * geometry.groups, blocks):
        kernel = _Pixels(geometry, pixels, dtype, read, weight, store)
        runs = choose_runs(k, kernel.shape, size, kernel.element)
        if runs.width > 1:
            break
    runs.store(k, kernel.element)


@dataclass(frozen=True)
class _Pixels:
    """What a thread computes: `pixels` neighbours of a row."""

    geometry: Geometry
    pixels: int
    dtype: str
    read: Read
    weight: Read
    store: Callable[..., None]

    @property
    def shape(self) -> list[int]:
        """Images, places along outer axes, groups of pixels, and channels."""
        *outer, last = (axis.output for axis in self.geometry.axes)
        return [self.geometry.batch, *outer, last // self.pixels, self.geometry.groups]

    def element(self, k: KernelBuilder, result: Sequence[Expr]) -> None:
        """All results of one channel. Inputs are read row by row, and each is used for all results that it counts for."""
        n, *place, group, channel = result
        *outer, last = self.geometry.axes
        totals = k.local(self.pixels, self.dtype)
        for pixel in range(self.pixels):
            k.assign(totals, pixel, const(0, self.dtype))
        for number, taps in enumerate(np.ndindex(*(axis.kernel for axis in outer))):
            row = [axis.source(i, tap) for axis, i, tap in zip(outer, place, taps, strict=True)]
            inputs: dict[int, Expr] = {}
            for step in self._steps():
                at = group * (self.pixels * last.stride) + (step - last.pad)
                inputs[step] = k.bind(self.read(k, [n, channel, *row, at]))
            for column in range(last.kernel):
                factor = k.bind(self.weight(k, [number * last.kernel + column, channel]))
                for pixel in range(self.pixels):
                    value = inputs[pixel * last.stride + column * last.dilation]
                    k.assign(totals, pixel, totals[pixel] + factor * value)
        for pixel in range(self.pixels):
            self.store(k, [n, channel, *place, group * self.pixels + pixel], totals[pixel])

    def _steps(self) -> list[int]:
        """Inputs of a row, by their distance from the first one."""
        last = self.geometry.axes[-1]
        taps = np.ndindex(self.pixels, last.kernel)
        return sorted({pixel * last.stride + tap * last.dilation for pixel, tap in taps})

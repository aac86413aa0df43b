"""Depthwise convolutions: a thread for a run of neighbouring channels of a few pixels, which share inputs and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.conv_rows import Geometry

BLOCKS = ((1, 4), (1, 2))
"""Rows, and pixels of each, by one thread."""

STRIDED = ((1, 2),)
"""Where windows are strided, which share fewer inputs."""

ENOUGH = 65536
"""Threads that a GPU needs to have enough reads under way."""

SHORTEST = 8
"""Channels of a run, where those are counted that are left."""

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
    blocks = BLOCKS if geometry.axes[-1].stride == 1 else STRIDED
    for rows, pixels in [*(each for each in blocks if _suits(geometry, *each)), (1, 1)]:
        kernel = _Block(geometry, rows, pixels, dtype, read, weight, store)
        runs = choose_runs(k, kernel.shape, size, kernel.element)
        if runs.width > 1:
            break
    runs.store(k, kernel.element)


def _suits(geometry: Geometry, rows: int, pixels: int) -> bool:
    """Whether images are whole numbers of such blocks, and enough threads are left."""
    *outer, last = geometry.axes
    results = geometry.batch * geometry.groups * math.prod(axis.output for axis in geometry.axes)
    whole = last.output % pixels == 0 and (rows == 1 or (len(outer) == 1 and outer[0].output % rows == 0))
    return whole and results >= ENOUGH * SHORTEST * rows * pixels


@dataclass(frozen=True)
class _Block:
    """What a thread computes: `pixels` of each of `rows` rows."""

    geometry: Geometry
    rows: int
    pixels: int
    dtype: str
    read: Read
    weight: Read
    store: Callable[..., None]

    @property
    def shape(self) -> list[int]:
        """Images, blocks along every axis, and channels."""
        *outer, last = (axis.output for axis in self.geometry.axes)
        return [
            self.geometry.batch,
            *(extent // self.rows for extent in outer),
            last // self.pixels,
            self.geometry.groups,
        ]

    def element(self, k: KernelBuilder, result: Sequence[Expr]) -> None:
        """All results of one channel. Inputs are read row by row, and each is used for all results that it counts for."""
        n, *place, block, channel = result
        *outer, last = self.geometry.axes
        first = [i * self.rows for i in place]
        totals, factors = k.local(self.rows * self.pixels, self.dtype), dict[tuple[int, ...], Expr]()
        for each in range(self.rows * self.pixels):
            k.assign(totals, each, const(0, self.dtype))
        for steps, users in self._source_rows().items():
            rows = [
                i * axis.stride + (step - axis.pad) for axis, i, step in zip(outer, first, steps, strict=True)
            ]
            inputs: dict[int, Expr] = {}
            for step in self._source_columns():
                at = block * (self.pixels * last.stride) + (step - last.pad)
                inputs[step] = k.bind(self.read(k, [n, channel, *rows, at]))
            for row, taps in users:
                for column in range(last.kernel):
                    factor = self._factor(k, factors, (*taps, column), channel)
                    for pixel in range(self.pixels):
                        value = inputs[pixel * last.stride + column * last.dilation]
                        at = row * self.pixels + pixel
                        k.assign(totals, at, totals[at] + factor * value)
        for row, pixel in np.ndindex(self.rows, self.pixels):
            index = [
                n,
                channel,
                *(i + row if self.rows > 1 else i for i in first),
                block * self.pixels + pixel,
            ]
            self.store(k, index, totals[row * self.pixels + pixel])

    def _factor(
        self, k: KernelBuilder, known: dict[tuple[int, ...], Expr], tap: tuple[int, ...], channel: Expr
    ) -> Expr:
        """The weight of a tap, which is read once."""
        if tap not in known:
            number = int(np.ravel_multi_index(tap, [axis.kernel for axis in self.geometry.axes]))
            known[tap] = k.bind(self.weight(k, [number, channel]))
        return known[tap]

    def _source_rows(self) -> dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]]:
        """Rows of the input, by their distance from the first one, with the rows of results and taps that use each."""
        outer = self.geometry.axes[:-1]
        found: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for row in range(self.rows):
            for taps in np.ndindex(*(axis.kernel for axis in outer)):
                steps = tuple(
                    row * axis.stride + t * axis.dilation for axis, t in zip(outer, taps, strict=True)
                )
                found.setdefault(steps, []).append((row, taps))
        return dict(sorted(found.items()))

    def _source_columns(self) -> list[int]:
        """Pixels of such a row, by their distance from the first one."""
        last = self.geometry.axes[-1]
        taps = np.ndindex(self.pixels, last.kernel)
        return sorted({pixel * last.stride + tap * last.dilation for pixel, tap in taps})

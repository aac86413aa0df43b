"""Depthwise convolutions: a thread for a run of neighbouring channels of a few pixels in a row, which share inputs and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.conv_rows import Geometry

PIXELS = (4, 2)
"""In a row, by one thread."""

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
    pixels, *_ = [*(each for each in PIXELS if _suits(geometry, each)), 1]
    *outer, last = geometry.axes
    shape = [geometry.batch, *(axis.output for axis in outer), last.output // pixels, geometry.groups]

    def element(k: KernelBuilder, result: Sequence[Expr]) -> None:
        n, *place, block, channel = result
        totals, inputs = k.local(pixels, dtype), dict[tuple[int, ...], Expr]()
        for pixel in range(pixels):
            k.assign(totals, pixel, const(0, dtype))
        for tap, (*taps, column) in enumerate(np.ndindex(*(axis.kernel for axis in geometry.axes))):
            factor = k.bind(weight(k, [tap, channel]))
            rows = [axis.source(i, t) for axis, i, t in zip(outer, place, taps, strict=True)]
            for pixel in range(pixels):
                step = pixel * last.stride + column * last.dilation
                if (*taps, step) not in inputs:
                    at = block * (pixels * last.stride) + (step - last.pad)
                    inputs[*taps, step] = k.bind(read(k, [n, channel, *rows, at]))
                k.assign(totals, pixel, totals[pixel] + factor * inputs[*taps, step])
        for pixel in range(pixels):
            store(k, [n, channel, *place, block * pixels + pixel], totals[pixel])

    choose_runs(k, shape, size, element).store(k, element)


def _suits(geometry: Geometry, pixels: int) -> bool:
    """Whether rows are whole numbers of so many pixels, and enough threads are left."""
    results = geometry.batch * geometry.groups * math.prod(axis.output for axis in geometry.axes)
    return geometry.axes[-1].output % pixels == 0 and results >= ENOUGH * SHORTEST * pixels

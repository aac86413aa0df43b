"""One spatial axis of a sliding window: which inputs an output reads, and how a transposed convolution splits into
plain ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tvm import tirx

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, const


@dataclass(frozen=True)
class Tiles:
    """`repeat` tiles of `width` outputs from `start` along one axis; interior ones read only inputs that exist."""

    start: int
    width: int
    repeat: int
    interior: bool


@dataclass(frozen=True)
class Axis:
    """`pad` is that at the beginning and may be negative; the one at the end follows from the output size."""

    input: int
    output: int
    kernel: int
    stride: int
    pad: int
    dilation: int

    @property
    def is_pointwise(self) -> bool:
        """Whether output i reads input i and nothing else."""
        return (self.kernel, self.stride, self.pad) == (1, 1, 0) and self.input == self.output

    @property
    def is_inside(self) -> bool:
        """Whether every tap of every output reads an existing input."""
        last = (self.output - 1) * self.stride + (self.kernel - 1) * self.dilation - self.pad
        return self.pad <= 0 and last < self.input

    def source(self, position: Expr, tap: Expr) -> Expr:
        """The input that output `position` reads through a tap."""
        return position * self.stride + tap * self.dilation - self.pad

    def has(self, position: int, tap: int) -> bool:
        """Whether that input exists."""
        return bool(0 <= self.source(position, tap) < self.input)

    def tiles(self, width: int) -> list[Tiles]:
        """The outputs cut into tiles of at most `width`: those at the borders one by one, the interior as one run."""
        tiles: list[Tiles] = []
        for start in range(0, self.output, width):
            end = min(start + width, self.output)
            interior = all(self.has(x, tap) for x in (start, end - 1) for tap in range(self.kernel))
            last = tiles[-1] if tiles else None
            if last and interior and last.interior and last.width == end - start:
                tiles[-1] = replace(last, repeat=last.repeat + 1)
            else:
                tiles.append(Tiles(start, end - start, 1, interior))
        return tiles

    def taps_of_tile(self, k: KernelBuilder, tiles: Tiles, start: Expr) -> Iterator[tuple[Expr, list[int]]]:
        """Loops over the taps; gives each with the outputs of the tile, counted from `start`, whose input exists."""
        everything = list(range(tiles.width))
        if tiles.interior:
            with k.loop(self.kernel, "serial", "tap") as tap:
                yield tap, everything
        elif tiles.repeat > 1:
            assert tiles.width == 1
            first, count = self.taps(start)
            with k.loop(count, "serial", "tap") as tap:
                yield first + tap, everything
        else:
            for position in range(self.kernel):
                existing = [x for x in everything if self.has(tiles.start + x, position)]
                if existing:
                    yield position, existing

    def taps(self, position: Expr) -> tuple[Expr, Expr]:
        """First tap, and number of taps, whose inputs exist for output `position`."""
        if self.is_inside:
            return const(0, INDEX), const(self.kernel, INDEX)
        start = position * self.stride - self.pad
        first = tirx.op.max(const(0, INDEX), -tirx.op.floordiv(start, self.dilation))
        end = tirx.op.min(
            const(self.kernel, INDEX), tirx.op.floordiv(self.input - 1 - start, self.dilation) + 1
        )
        return first, tirx.op.max(end - first, const(0, INDEX))


@dataclass(frozen=True)
class Phase:
    """Every `spread`-th output of a transposed convolution from `start`: a plain one over some of the taps.

    `axis` is that of the plain convolution; its tap j stands for tap `first + (axis.kernel - 1 - j) * step`.
    """

    axis: Axis
    start: int
    spread: int
    first: int
    step: int

    def tap(self, position: Expr) -> Expr:
        """The original tap of tap `position` of the plain convolution."""
        return self.first + (self.axis.kernel - 1 - position) * self.step

    @property
    def slice(self) -> slice:
        """The original taps in ascending order; reversed they are those of the plain convolution."""
        return slice(self.first, None, self.step) if self.axis.kernel else slice(0, 0)


def transposed_phases(axis: Axis) -> list[Phase]:
    """The phases of a transposed convolution: output o + pad = input * stride + tap * dilation.

    Within a phase o + pad has one remainder modulo the stride, and so has tap * dilation. `lowest` is the smallest
    quotient of an existing output, `nearest` the input that it reads through the first tap.
    """
    phases = []
    step = axis.stride // math.gcd(axis.stride, axis.dilation)
    shift = step * axis.dilation // axis.stride
    for remainder in range(axis.stride):
        lowest = -((remainder - axis.pad) // axis.stride)
        start = lowest * axis.stride + remainder - axis.pad
        output = max(-((start - axis.output) // axis.stride), 0)
        first = next((t for t in range(step) if t * axis.dilation % axis.stride == remainder), axis.kernel)
        kernel = max(-((first - axis.kernel) // step), 0)
        nearest = lowest - (first * axis.dilation - remainder) // axis.stride
        pad = (kernel - 1) * shift - nearest if kernel else 0
        plain = Axis(axis.input, output, kernel, 1, pad, shift)
        if output:
            phases.append(Phase(plain, start, axis.stride, first, step))
    return phases

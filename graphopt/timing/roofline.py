"""The roofline plot of a profile: where each kernel stands between the memory's and the multipliers' limit, as SVG points.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures", 2009.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.timing.layers import Layer, LayerTimes

WIDTH, HEIGHT = 860, 420
MARGIN = 50
LEAST_RADIUS, MOST_RADIUS = 2.5, 16.0


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis from `low` to `high`, drawn from pixel `first` to pixel `last`."""

    low: float
    high: float
    first: float
    last: float

    def place(self, value: float) -> float:
        """The pixel of a value."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Pixel and label of every power of ten."""
        for power in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1):
            yield self.place(10.0**power), f"{10.0**power:g}"


@dataclass(frozen=True)
class Point:
    """A kernel; its area stands for its time."""

    x: float
    y: float
    radius: float
    kernel: str
    title: str


@dataclass(frozen=True)
class Roofline:
    """Axes (FLOP a byte, GFLOP/s), kernels, and the corners of the roof in pixels."""

    x: Scale
    y: Scale
    points: list[Point]
    roof: list[tuple[float, float]]


def roofline(times: LayerTimes) -> Roofline | None:
    """The plot of the kernels that multiply matrices; None without any."""
    layers = [layer for layer in times.layers if layer.macs and layer.ms and layer.bytes]
    if not layers:
        return None
    ridge = times.peak.gflops / times.peak.gbytes_s
    x = _scale([*map(_intensity, layers), ridge], MARGIN, WIDTH - 10)
    y = _scale([*(layer.gflops for layer in layers), times.peak.gflops], HEIGHT - MARGIN, 10)
    slowest = max(layer.ms for layer in layers)
    return Roofline(x, y, [_point(layer, x, y, slowest) for layer in layers], _roof(times, x, y))


def _intensity(layer: Layer) -> float:
    """Operations a byte of the buffers that it reads and writes."""
    return 2 * layer.macs / layer.bytes


def _scale(values: list[float], first: float, last: float) -> Scale:
    return Scale(min(values) / 1.5, max(values) * 1.5, first, last)


def _point(layer: Layer, x: Scale, y: Scale, slowest: float) -> Point:
    radius = max(MOST_RADIUS * math.sqrt(layer.ms / slowest), LEAST_RADIUS)
    title = f"{layer.kernel}: {layer.nodes}\n{layer.ms:.3f} ms, {layer.gflops:.0f} GFLOP/s"
    return Point(x.place(_intensity(layer)), y.place(layer.gflops), round(radius, 1), layer.kernel, title)


def _roof(times: LayerTimes, x: Scale, y: Scale) -> list[tuple[float, float]]:
    """From the left edge along the memory's limit to the ridge, then along the multipliers' to the right edge."""
    peak, bandwidth = times.peak.gflops, times.peak.gbytes_s
    start = max(x.low, y.low / bandwidth)
    corners = [(start, start * bandwidth), (peak / bandwidth, peak), (x.high, peak)]
    return [(x.place(intensity), y.place(gflops)) for intensity, gflops in corners]

"""Kernels and the roof on logarithmic axes."""

import pytest

from graphopt.timing.layers import Layer, LayerTimes, Peak
from graphopt.timing.roofline import HEIGHT, WIDTH, Scale, roofline


def profile(*layers: Layer) -> LayerTimes:
    return LayerTimes("m", 1, 1, layers, Peak(100.0, 10.0), 0.0)


def test_scales_are_logarithmic_with_a_tick_a_decade() -> None:
    scale = Scale(1.0, 100.0, 0.0, 200.0)
    assert scale.place(10.0) == 100
    assert list(scale.ticks()) == [(0, "1"), (100, "10"), (200, "100")]


def test_kernels_are_under_the_roof() -> None:
    busy = Layer("gemm", "busy", 40_000_000, 1_000_000, 1.0)
    idle = Layer("gemm", "idle", 1_000_000, 1_000_000, 0.25)
    plot = roofline(profile(busy, idle, Layer("pool", "none", 0, 100, 1.0)))
    assert plot is not None
    assert [point.title.split("\n")[0] for point in plot.points] == ["gemm: busy", "gemm: idle"]
    assert plot.points[0].radius == 2 * plot.points[1].radius
    assert plot.points[0].y < plot.points[1].y
    assert plot.points[0].y > plot.roof[-1][1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in plot.roof)
    assert plot.roof[1][0] == pytest.approx(plot.x.place(10.0))


def test_no_plot_without_multiplications() -> None:
    assert roofline(profile(Layer("pool", "none", 0, 100, 1.0))) is None

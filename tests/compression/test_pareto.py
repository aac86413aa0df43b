"""Rows and dots of a search: what they say, and where the dots are."""

from pathlib import Path

from graphopt.compression.compressing import Compression, Point
from graphopt.compression.pareto import COLUMNS, HEIGHT, MARGIN, WIDTH, plots, rows
from graphopt.compression.plans import Plan

POINTS = [
    Point(Plan(), 0.0, 2_000_000, 1.0),
    Point(Plan(0.5), 1.0, 1_000_000, 0.5),
    Point(Plan(0.4), 2.0, 1_500_000, 0.75),
    Point(Plan(0.3), 9.0),
]


def compression(points: list[Point], chosen: int = 0) -> Compression:
    return Compression(points, points[chosen], "agreement", 100.0, Path("a.gopt"), [])


def test_a_row_for_each_point() -> None:
    assert rows(compression(POINTS, chosen=1)) == [
        ["as it was", "0.000", "2.000", "1.000", "front"],
        ["50 % of multiply-adds", "1.000", "1.000", "0.500", "chosen"],
        ["40 % of multiply-adds", "2.000", "1.500", "0.750", ""],
        ["30 % of multiply-adds", "9.000", "", "", "too much"],
    ]
    assert {len(row) for row in rows(compression(POINTS))} == {len(COLUMNS)}


def test_dots_are_where_their_numbers_are() -> None:
    sizes, latencies = plots(compression(POINTS, chosen=1))
    left, right, top, bottom = MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN
    for plot in (sizes, latencies):
        assert [(dot.x, dot.y) for dot in plot.dots] == [
            (right, bottom),
            ((left + right) / 2, (top + bottom) / 2),
            (left + 0.75 * (right - left), top),
        ]
        assert [dot.kind for dot in plot.dots] == ["front", "chosen", "other"]
        assert plot.highest == "2"
    assert (sizes.widest, latencies.widest) == ("2", "1")
    assert sizes.dots[1].title == "50 % of multiply-adds: 1 MB, 1 lost"


def test_what_gains_lies_on_the_axis() -> None:
    better = Point(Plan(0.9), -1.0, 1_000_000, 0.9)
    for plot in plots(compression([POINTS[0], better])):
        assert {dot.y for dot in plot.dots} == {HEIGHT - MARGIN}


def test_one_point_is_no_plot() -> None:
    assert plots(compression([POINTS[0], POINTS[3]])) == []

"""What was tried to make a model smaller, as rows of a table and as dots of a plot: what is lost against what is gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphopt.compression.compressing import Compression, Point

WIDTH, HEIGHT, MARGIN = 860, 360, 48

COLUMNS = ("plan", "lost", "MB", "latency", "")


@dataclass(frozen=True)
class Dot:
    """A point in pixels; `kind` is chosen, front or other."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Plot:
    """Dots, and the largest values along the axes."""

    title: str
    widest: str
    highest: str
    dots: list[Dot]


def rows(done: Compression) -> list[list[str]]:
    """The cells of each point."""
    return [_row(point, _kind(done, point)) for point in done.points]


def plots(done: Compression) -> list[Plot]:
    """Of bytes and of latency, where there are at least two points."""
    measured = [point for point in done.points if point.bytes is not None]
    if len(measured) < 2:
        return []
    return [
        _plot(done, measured, "MB", lambda point: (point.bytes or 0) / 1e6),
        _plot(done, measured, "latency relative to the model as it was", lambda point: point.latency or 0.0),
    ]


def _plot(done: Compression, points: Sequence[Point], title: str, gain: Callable[[Point], float]) -> Plot:
    widest = max(gain(point) for point in points) or 1.0
    highest = max(*(point.drop for point in points), 1e-9)
    dots = [
        Dot(
            round(MARGIN + (WIDTH - 2 * MARGIN) * gain(point) / widest, 1),
            round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * max(point.drop, 0) / highest, 1),
            _kind(done, point),
            f"{point.plan}: {gain(point):.3g} {title}, {point.drop:.3g} lost",
        )
        for point in points
    ]
    return Plot(title, f"{widest:.3g}", f"{highest:.3g}", dots)


def _kind(done: Compression, point: Point) -> str:
    if point == done.chosen:
        return "chosen"
    return "front" if point in done.front else "other"


def _row(point: Point, kind: str) -> list[str]:
    if point.bytes is None or point.latency is None:
        return [str(point.plan), f"{point.drop:.3f}", "", "", "too much"]
    note = "" if kind == "other" else kind
    return [str(point.plan), f"{point.drop:.3f}", f"{point.bytes / 1e6:.3f}", f"{point.latency:.3f}", note]

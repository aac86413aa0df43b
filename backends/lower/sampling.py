"""GridSample and AffineGrid: reading an image at coordinates that are computed at run time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, cast, const
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import Lowered, Operator, attribute, shape_of
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Index, Tensor, lazy

CUBIC_COEFFICIENT = -0.75

MODES = {"bilinear": "linear", "bicubic": "cubic"}
"""Names before opset 20."""

FAR = float(1 << 24)
"""Coordinates are bounded to this before they become integers."""

Tap = tuple[Expr, Expr]
"""An integer coordinate and its weight (None for 1)."""


def _grid_sample(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = ctx.in_memory(first_input(ctx, node))
    grid = ctx.cheap(ctx.tensor(node.inputs[1]))  # type: ignore[arg-type]
    mode = attribute(node, "mode", "linear")
    taps_of = TAPS[MODES.get(mode, mode)]
    padding = PADDING[attribute(node, "padding_mode", "zeros")]
    corners = bool(attribute(node, "align_corners", 0))
    spatial = x.shape[2:]

    def read(k: KernelBuilder, index: Index) -> Expr:
        n, channel, *place = index
        axes = []
        for axis, extent in enumerate(spatial):
            component = const(len(spatial) - 1 - axis, INDEX)
            position = cast(grid.read(k, [n, *place, component]), "float32")
            axes.append(
                [
                    (padding(k, at, extent, corners), weight)
                    for at, weight in taps_of(k, _denormalized(k, position, extent, corners, padding))
                ]
            )
        return _weighted(k, x, [n, channel], axes)

    return [lazy(shape_of(node.outputs[0]), x.dtype, read, 40)]


def _denormalized(k: KernelBuilder, x: Expr, extent: int, corners: bool, padding: Padding) -> Expr:
    """A coordinate in [-1, 1] as one between the elements of an axis."""
    x = x + _f(1)
    x = x * _f((extent - 1) / 2) if corners else (x * _f(extent) - _f(1)) * _f(0.5)
    if padding is _reflection:
        x = _reflected(k, x, extent, corners)
    return k.bind(_bounded(x, -FAR, FAR))


def _reflected(k: KernelBuilder, x: Expr, extent: int, corners: bool) -> Expr:
    """Folded back at both borders as often as it takes."""
    low, span = (0.0, extent - 1.0) if corners else (-0.5, float(extent))
    if span == 0:
        return _f(0)
    distance = k.bind(tirx.op.abs(_bounded(x, -FAR, FAR) - _f(low)))
    turns = k.bind(tirx.op.floor(distance / _f(span)))
    rest = k.bind(distance - turns * _f(span))
    even = tirx.EQ(turns - tirx.op.floor(turns * _f(0.5)) * _f(2), _f(0))
    return tirx.Select(even, rest + _f(low), _f(low + span) - rest)


def _bounded(x: Expr, low: float, high: float) -> Expr:
    return tirx.op.min(tirx.op.max(x, _f(low)), _f(high))


def _nearest(k: KernelBuilder, x: Expr) -> list[Tap]:
    """Halves go to the even neighbour."""
    floor = k.bind(tirx.op.floor(x))
    fraction = k.bind(x - floor)
    odd = k.bind(floor - tirx.op.floor(floor * _f(0.5)) * _f(2))
    up = tirx.Select(tirx.EQ(fraction, _f(0.5)), odd, tirx.Select(fraction > _f(0.5), _f(1), _f(0)))
    return [(k.bind(cast(floor + up, INDEX)), None)]


def _linear(k: KernelBuilder, x: Expr) -> list[Tap]:
    floor = k.bind(tirx.op.floor(x))
    fraction, first = k.bind(x - floor), k.bind(cast(floor, INDEX))
    return [(first, _f(1) - fraction), (k.bind(first + 1), fraction)]


def _cubic(k: KernelBuilder, x: Expr) -> list[Tap]:
    floor = k.bind(tirx.op.floor(x))
    t, first, a = k.bind(x - floor), k.bind(cast(floor, INDEX)), CUBIC_COEFFICIENT

    def near(d: Expr) -> Expr:
        return k.bind((_f(a + 2) * d - _f(a + 3)) * d * d + _f(1))

    def far(d: Expr) -> Expr:
        return k.bind(((_f(a) * d - _f(5 * a)) * d + _f(8 * a)) * d - _f(4 * a))

    weights = [far(t + _f(1)), near(t), near(_f(1) - t), far(_f(2) - t)]
    return [(k.bind(first + offset - 1), weight) for offset, weight in enumerate(weights)]


TAPS: dict[str, Callable[[KernelBuilder, Expr], list[Tap]]] = {
    "cubic": _cubic,
    "linear": _linear,
    "nearest": _nearest,
}

Place = tuple[Expr, Expr]
"""A coordinate within bounds, and whether the element counts (None where it always does)."""


def _zeros(k: KernelBuilder, at: Expr, extent: int, corners: bool) -> Place:
    inside = tirx.op.all(tirx.GE(at, 0), tirx.LT(at, extent))
    return _clamped(k, at, extent), inside


def _border(k: KernelBuilder, at: Expr, extent: int, corners: bool) -> Place:
    return _clamped(k, at, extent), None


def _reflection(k: KernelBuilder, at: Expr, extent: int, corners: bool) -> Place:
    """Taps beyond the border are folded back like coordinates."""
    if extent == 1:
        return const(0, INDEX), None
    span = 2 * (extent - 1) if corners else 2 * extent
    folded = k.bind(tirx.op.floormod(at, span))
    mirrored = span - folded if corners else span - 1 - folded
    return _clamped(k, tirx.op.min(folded, mirrored), extent), None


def _clamped(k: KernelBuilder, at: Expr, extent: int) -> Expr:
    return k.bind(tirx.op.max(const(0, INDEX), tirx.op.min(at, const(extent - 1, INDEX))))


Padding = Callable[[KernelBuilder, Expr, int, bool], Place]

PADDING: dict[str, Padding] = {"border": _border, "reflection": _reflection, "zeros": _zeros}


def _weighted(
    k: KernelBuilder, x: Tensor, prefix: Sequence[Expr], axes: Sequence[Sequence[tuple[Place, Expr]]]
) -> Expr:
    """The sum over all combinations of the taps of every axis."""
    total: Expr = None
    for combination in itertools.product(*axes):
        value = cast(x.read(k, [*prefix, *(at for (at, _), _ in combination)]), "float32")
        conditions = [inside for (_, inside), _ in combination if inside is not None]
        if conditions:
            value = tirx.Select(tirx.op.all(*conditions), value, _f(0))
        for _, weight in combination:
            value = value if weight is None else value * weight
        total = value if total is None else total + value
    return cast(total, x.dtype)


def _affine_grid(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """The coordinates `theta` sends the centres (or with align_corners the corners) of a regular grid to."""
    theta = ctx.cheap(first_input(ctx, node))
    shape = shape_of(node.outputs[0])
    spatial = shape[1:-1]
    corners = attribute(node, "align_corners", 0)

    def coordinate(i: Expr, extent: int) -> Expr:
        position = cast(const(i, INDEX) if isinstance(i, int) else i, "float32")
        if not corners:
            return (position * _f(2) + _f(1)) / _f(extent) - _f(1)
        return position * _f(2 / (extent - 1)) - _f(1) if extent > 1 else _f(0)

    def read(k: KernelBuilder, index: Index) -> Expr:
        n, *place, component = index
        base = [coordinate(i, extent) for i, extent in zip(place, spatial, strict=True)][::-1]
        total = cast(theta.read(k, [n, component, const(len(spatial), INDEX)]), "float32")
        for column, value in enumerate(base):
            total = total + cast(theta.read(k, [n, component, const(column, INDEX)]), "float32") * value
        return cast(total, theta.dtype)

    return [lazy(shape, theta.dtype, read, theta.cost + 10)]


def _f(value: float) -> Expr:
    return const(float(value), "float32")


OPERATORS: dict[str, Operator] = {
    "AffineGrid": Lowered(_affine_grid),
    "GridSample": Lowered(_grid_sample),
}

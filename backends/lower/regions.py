"""Pooling over regions of interest that are given at run time: RoiAlign and MaxRoiPool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, Local, cast, const
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator, attribute, shape_of
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor


@dataclass(frozen=True)
class _Bins:
    """Where one axis of a region starts, how wide one of its bins is, and how many samples a bin takes."""

    start: Expr
    width: Expr
    samples: Expr


def _roi_align(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Bilinear samples at a regular grid within every bin, averaged or the largest taken."""
    x = ctx.in_memory(first_input(ctx, node))
    rois, batch = (ctx.in_memory(ctx.tensor(value)) for value in node.inputs[1:3] if value is not None)
    largest = attribute(node, "mode", "avg") == "max"
    out = ctx.result(node.outputs[0], shape_of(node.outputs[0]), x.dtype)
    storage = storage_of(out)
    with ctx.kernel("roi_align") as k, k.loop(out.size, "parallel", "element") as element:
        roi, channel, y, column = (k.bind(i) for i in split_index(element, out.shape))
        image = k.bind(cast(batch.read(k, [roi]), INDEX))
        rows = _bins(k, ctx, node, rois, roi, 1, out.shape[2])
        columns = _bins(k, ctx, node, rois, roi, 0, out.shape[3])
        total = k.local(1, "float32")
        k.assign(total, 0, _f(-np.inf if largest else 0.0))
        with k.loop(rows.samples, "serial", "iy") as iy, k.loop(columns.samples, "serial", "ix") as ix:
            corners = _corners(k, x, image, channel, _sample(k, rows, y, iy), _sample(k, columns, column, ix))
            _gather_sample(k, total, corners, largest)
        count = cast(tirx.op.max(rows.samples * columns.samples, const(1, INDEX)), "float32")
        value = total[0] if largest else total[0] / count
        k.store(storage.buffer, storage.layout.position([roi, channel, y, column]), cast(value, x.dtype))
    return [None]


def _bins(
    k: KernelBuilder, ctx: Lowering, node: ir.Node, rois: Tensor, roi: Expr, first: int, bins: int
) -> _Bins:
    """The bins of one axis; `first` is the column of `rois` that holds its start."""
    default = "half_pixel" if ctx.opset(node) >= 16 else "output_half_pixel"
    half = attribute(node, "coordinate_transformation_mode", default) == "half_pixel"
    scale, shift = _f(attribute(node, "spatial_scale", 1.0)), _f(0.5 if half else 0.0)
    begin, end = (
        k.bind(cast(rois.read(k, [roi, const(c, INDEX)]), "float32") * scale - shift)
        for c in (first, first + 2)
    )
    extent = end - begin if half else tirx.op.max(end - begin, _f(1.0))
    width = k.bind(extent / _f(bins))
    fixed = attribute(node, "sampling_ratio", 0)
    samples = const(fixed, INDEX) if fixed > 0 else k.bind(cast(tirx.op.ceil(width), INDEX))
    return _Bins(begin, width, samples)


def _sample(k: KernelBuilder, bins: _Bins, number: Expr, sample: Expr) -> Expr:
    """The coordinate of a sample of a bin."""
    offset = (cast(_expr(sample), "float32") + _f(0.5)) * bins.width / cast(bins.samples, "float32")
    return k.bind(bins.start + cast(_expr(number), "float32") * bins.width + offset)


def _corners(k: KernelBuilder, x: Tensor, image: Expr, channel: Expr, y: Expr, column: Expr) -> list[Expr]:
    """The four neighbours of a sample, each times its weight; zeros for a sample outside the image."""
    rows, columns = (_neighbours(k, at, extent) for at, extent in zip((y, column), x.shape[2:], strict=True))
    inside = tirx.op.all(
        *(
            c
            for at, extent in zip((y, column), x.shape[2:], strict=True)
            for c in (at >= _f(-1.0), at <= _f(extent))
        )
    )
    return [
        k.bind(
            tirx.Select(inside, cast(x.reader(k, [image, channel, row, c]), "float32") * (wy * wx), _f(0.0))
        )
        for row, wy in rows
        for c, wx in columns
    ]


def _neighbours(k: KernelBuilder, at: Expr, extent: int) -> list[tuple[Expr, Expr]]:
    """Both elements next to a coordinate and their weights; beyond the border the last element counts alone."""
    at = tirx.op.min(tirx.op.max(at, _f(0.0)), _f(extent - 1))
    at = k.bind(at)
    low = k.bind(cast(at, INDEX))
    fraction = k.bind(at - cast(low, "float32"))
    high = k.bind(tirx.op.min(low + 1, const(extent - 1, INDEX)))
    return [(low, k.bind(_f(1.0) - fraction)), (high, fraction)]


def _gather_sample(k: KernelBuilder, total: Local, corners: Sequence[Expr], largest: bool) -> None:
    """Average takes the interpolated value, maximum the largest weighted corner (as ONNX defines it)."""
    for corner in corners:
        k.assign(total, 0, tirx.op.max(total[0], corner) if largest else total[0] + corner)


def _max_roi_pool(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """The largest element of every bin, whose borders are rounded outwards; empty bins give 0."""
    x = ctx.in_memory(first_input(ctx, node))
    rois = ctx.in_memory(ctx.tensor(node.inputs[1]))  # type: ignore[arg-type]
    scale = attribute(node, "spatial_scale", 1.0)
    out = ctx.result(node.outputs[0], shape_of(node.outputs[0]), x.dtype)
    storage = storage_of(out)
    with ctx.kernel("roi_pool") as k, k.loop(out.size, "parallel", "element") as element:
        roi, channel, y, column = (k.bind(i) for i in split_index(element, out.shape))

        def corner(position: int) -> Expr:
            value = cast(rois.read(k, [roi, const(position, INDEX)]), "float32") * _f(scale)
            return k.bind(_rounded(value))

        image = k.bind(cast(rois.read(k, [roi, const(0, INDEX)]), INDEX))
        top, rows = _integer_bin(k, corner(2), corner(4), y, out.shape[2], x.shape[2])
        left, columns = _integer_bin(k, corner(1), corner(3), column, out.shape[3], x.shape[3])
        best = k.local(1, x.dtype)
        empty = tirx.op.any(tirx.LE(rows, 0), tirx.LE(columns, 0))
        k.assign(best, 0, tirx.Select(empty, const(0, x.dtype), const(float(np.finfo(x.dtype).min), x.dtype)))
        with k.loop(rows, "serial", "iy") as iy, k.loop(columns, "serial", "ix") as ix:
            k.assign(best, 0, tirx.op.max(best[0], x.reader(k, [image, channel, top + iy, left + ix])))
        k.store(storage.buffer, storage.layout.position([roi, channel, y, column]), best[0])
    return [None]


def _integer_bin(
    k: KernelBuilder, begin: Expr, end: Expr, number: Expr, bins: int, extent: int
) -> tuple[Expr, Expr]:
    """First element and number of elements of bin `number` of the elements begin..end."""
    width = k.bind(cast(tirx.op.max(end - begin + 1, const(1, INDEX)), "float32") / _f(bins))

    def border(position: Expr, rounding: Callable[[Expr], Expr]) -> Expr:
        place = begin + cast(rounding(cast(_expr(position), "float32") * width), INDEX)
        return k.bind(tirx.op.min(tirx.op.max(place, const(0, INDEX)), const(extent, INDEX)))

    first, last = border(number, tirx.op.floor), border(number + 1, tirx.op.ceil)
    return first, k.bind(tirx.op.max(last - first, const(0, INDEX)))


def _rounded(value: Expr) -> Expr:
    """Halves away from zero."""
    shifted = tirx.Select(value < _f(0.0), tirx.op.ceil(value - _f(0.5)), tirx.op.floor(value + _f(0.5)))
    return cast(shifted, INDEX)


def _expr(index: Expr) -> Expr:
    return const(index, INDEX) if isinstance(index, int) else index


def _f(value: float) -> Expr:
    return const(float(value), "float32")


OPERATORS: dict[str, Operator] = {
    "MaxRoiPool": Lowered(_max_roi_pool),
    "RoiAlign": Lowered(_roi_align),
}

"""Resize and Upsample, one axis after the other, with positions and weights from tables made at compile time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.interpolation import Axis, Interpolation, Taps, taps
from graphopt.backends.lower.operator import Lowered, Operator, Refused, attribute, constant_input, shape_of
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Index, Tensor, lazy

NESTED_TAPS = 2
"""Taps of one axis up to which the next axis reads through it instead of from memory."""


def _resize(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    x = first_input(ctx, node)
    how, axes = _interpolation(ctx, node), _axes(ctx, node, x)
    _check_corners(how, axes)
    tables = {
        axis: taps(description, how) for axis, description in enumerate(axes) if not description.is_kept
    }
    result = _as_real(x) if how.mode != "nearest" and tables else ctx.cheap(x)
    for axis, table in tables.items():
        source = ctx.in_memory(result) if table.count > 1 and _is_deep(result, x) else result
        result = _resized(ctx, source, axis, table)
    result = _extrapolated(ctx, result, tables, attribute(node, "extrapolation_value", 0.0))
    return [_as_type(result, x.dtype)]


def _check_corners(how: Interpolation, axes: Sequence[Axis]) -> None:
    """Refuse where the corners to align depend on whether the size is taken before or after rounding it down."""
    for axis in axes:
        wanted = axis.extent * axis.scale
        if how.coordinates == "align_corners" and not math.isclose(wanted, axis.resized, rel_tol=1e-5):
            raise Refused(
                f"align_corners with a scale of {axis.scale:g} leaves the size of an axis at {wanted:g}, "
                f"which tools align differently; give sizes instead of scales"
            )


def _is_deep(tensor: Tensor, x: Tensor) -> bool:
    """Whether reading an element computes much."""
    return tensor.is_lazy and tensor.cost - x.cost > 2 * NESTED_TAPS + 2


def _interpolation(ctx: Lowering, node: ir.Node) -> Interpolation:
    if node.op_type == "Upsample" or ctx.opset(node) < 11:
        return Interpolation(
            attribute(node, "mode", "nearest").replace("bilinear", "linear"), "asymmetric", "simple"
        )
    return Interpolation(
        attribute(node, "mode", "nearest"),
        attribute(node, "coordinate_transformation_mode", "half_pixel"),
        attribute(node, "nearest_mode", "round_prefer_floor"),
        attribute(node, "cubic_coeff_a", -0.75),
        bool(attribute(node, "exclude_outside", 0)),
        bool(attribute(node, "antialias", 0)),
    )


def _axes(ctx: Lowering, node: ir.Node, x: Tensor) -> list[Axis]:
    """How every axis of `x` is resized; `axes` restricts what the operands are about."""
    shape = shape_of(node.outputs[0])
    named = [axis % x.rank for axis in attribute(node, "axes", list(range(x.rank)))]
    scales = dict(zip(named, _scales(ctx, node, [x.shape[axis] for axis in named]), strict=True))
    roi = _region(ctx, node, len(named))
    regions = {axis: (float(roi[i]), float(roi[i + len(named)])) for i, axis in enumerate(named)}
    return [
        Axis(extent, shape[axis], scales.get(axis, 1.0), *regions.get(axis, (0.0, 1.0)))
        for axis, extent in enumerate(x.shape)
    ]


def _region(ctx: Lowering, node: ir.Node, count: int) -> Sequence[float]:
    """Starts, then ends; everything unless the coordinate mode crops."""
    everything = [0.0] * count + [1.0] * count
    if attribute(node, "coordinate_transformation_mode") != "tf_crop_and_resize":
        return everything
    roi = constant_input(ctx, node, 1, "region of interest")
    return everything if roi is None or roi.size == 0 else [float(edge) for edge in roi]


def _scales(ctx: Lowering, node: ir.Node, extents: Sequence[int]) -> list[float]:
    """The scale of every axis that the node names, given or found from the sizes."""
    if "scales" in node.attributes:
        return list(attribute(node, "scales"))
    old = node.op_type == "Upsample" or ctx.opset(node) < 11
    scales = constant_input(ctx, node, 1 if old else 2, "scales")
    if scales is not None and scales.size:
        return [float(scale) for scale in scales]
    sizes = constant_input(ctx, node, 3, "sizes")
    ratios = [int(size) / max(extent, 1) for size, extent in zip(sizes, extents, strict=True)]
    pick = {"not_larger": min, "not_smaller": max}.get(attribute(node, "keep_aspect_ratio_policy", "stretch"))
    return ratios if pick is None else [float(pick(ratios))] * len(ratios)


def _resized(ctx: Lowering, x: Tensor, axis: int, table: Taps) -> Tensor:
    """`x` with `axis` resized: a weighted sum of the taps of each position."""
    shape = [*x.shape[:axis], len(table.indices), *x.shape[axis + 1 :]]
    factor = _regular(table)
    places = ctx.constant(table.indices)
    weights = ctx.constant(table.weights)

    def element(k: KernelBuilder, index: Index, tap: int) -> Expr:
        at = list(index)
        at[axis] = factor(index[axis]) if factor else places.read(k, [index[axis], const(tap, "int32")])
        return x.read(k, at)

    def read(k: KernelBuilder, index: Index) -> Expr:
        if table.count == 1:
            return element(k, index, 0)
        total: Expr = None
        for tap in range(table.count):
            weight = weights.read(k, [index[axis], const(tap, "int32")])
            term = element(k, index, tap) * weight
            total = term if total is None else total + term
        return total

    block = x.block if axis != 1 else 0
    cost = x.cost if table.count == 1 else (x.cost + 2) * table.count
    return lazy(shape, x.dtype, read, cost, block)


def _regular(table: Taps) -> Callable[[Expr], Expr] | None:
    """The input position as a function of the output position, where a division says it all."""
    if table.count > 1:
        return None
    indices = table.indices[:, 0]
    positions = np.arange(len(indices))
    repeat = math.ceil(len(indices) / max(int(indices.max(initial=0)) + 1, 1))
    if np.array_equal(indices, positions // repeat):
        return lambda i: i // repeat if isinstance(i, int) else tirx.op.floordiv(i, repeat)
    return None


def _extrapolated(ctx: Lowering, x: Tensor, tables: dict[int, Taps], value: float) -> Tensor:
    """The extrapolation value wherever a coordinate of any axis lies outside."""
    outside = {axis: ctx.constant(table.inside) for axis, table in tables.items() if not table.inside.all()}
    if not outside:
        return x

    def read(k: KernelBuilder, index: Index) -> Expr:
        inside = tirx.op.all(*(flags.read(k, [index[axis]]) for axis, flags in outside.items()))
        return tirx.Select(inside, x.read(k, index), const(value, x.dtype))

    return lazy(x.shape, x.dtype, read, x.cost + 2, x.block)


def _as_real(x: Tensor) -> Tensor:
    """Integers and short floats are interpolated in float32."""
    return x if x.dtype in ("float32", "float64") else _as_type(x, "float32")


def _as_type(x: Tensor, dtype: str) -> Tensor:
    if x.dtype == dtype:
        return x
    return lazy(x.shape, dtype, lambda k, index: cast(x.read(k, index), dtype), x.cost + 1, x.block)


OPERATORS: dict[str, Operator] = {
    "Resize": Lowered(_resize),
    "Upsample": Lowered(_resize),
}

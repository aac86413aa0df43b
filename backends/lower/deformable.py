"""DeformConv: the input is sampled where the offsets point, and the samples are multiplied by the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.matmul import Product, multiply
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.views import reshape
from graphopt.backends.lower.windows import axes_of
from graphopt.backends.tensor import Index, Tensor, lazy, unravel


@dataclass(frozen=True)
class Sampling:
    """Where taps read: `offsets [n, groups * taps * 2, h, w]` (row then column), `mask [n, groups * taps, h, w]`."""

    input: Tensor
    offsets: Tensor
    mask: Tensor | None
    groups: int
    axes: tuple[Axis, ...]

    @property
    def taps(self) -> int:
        return math.prod(axis.kernel for axis in self.axes)

    def sample(self, k: KernelBuilder, n: Expr, channel: Expr, tap: Expr, place: Sequence[Expr]) -> Expr:
        """The input that a tap of output `place` reads, weighted by the mask."""
        group = channel // (self.input.shape[1] // self.groups) if self.groups > 1 else 0
        which = k.bind(cast(group * self.taps + tap, "int32"))
        taps = unravel(tap, [axis.kernel for axis in self.axes])
        y, x = (
            k.bind(
                cast(axis.source(i, t), self.offsets.dtype)
                + self.offsets.read(k, [n, which * 2 + side, *place])
            )
            for side, (axis, i, t) in enumerate(zip(self.axes, place, taps, strict=True))
        )
        value = self._interpolate(k, n, channel, y, x)
        return value if self.mask is None else value * self.mask.read(k, [n, which, *place])

    def _interpolate(self, k: KernelBuilder, n: Expr, channel: Expr, y: Expr, x: Expr) -> Expr:
        """Bilinear interpolation; what lies outside the image is zero."""
        height, width = self.input.shape[2:]
        rows, columns = self._corners(k, y, height), self._corners(k, x, width)
        return sum(
            row_weight * column_weight * self.input.read(k, [n, channel, row, column])
            for row, row_weight in rows
            for column, column_weight in columns
        )

    def _corners(self, k: KernelBuilder, position: Expr, extent: int) -> list[tuple[Expr, Expr]]:
        """The two grid points next to a position and their weights, zero for those that do not exist."""
        dtype = self.input.dtype
        low = k.bind(tirx.op.floor(position))
        fraction = k.bind(position - low)
        clamped = tirx.op.max(const(-2, dtype), tirx.op.min(low, const(extent, dtype)))
        first = k.bind(cast(clamped, "int32"))
        corners = []
        for point, weight in ((first, const(1, dtype) - fraction), (first + 1, fraction)):
            exists = tirx.op.all(point >= 0, point < extent)
            inside = tirx.op.max(const(0, "int32"), tirx.op.min(point, const(extent - 1, "int32")))
            corners.append((k.bind(inside), k.bind(tirx.Select(exists, weight, const(0, dtype)))))
        return corners


def lower_deform_conv(ctx: Lowering, node: ir.Node) -> None:
    """DeformConv of two spatial axes."""
    x, weights, offsets, *rest = ctx.inputs(node)
    assert x is not None
    assert weights is not None
    assert offsets is not None
    if x.rank != 4 or accumulator_of(x.dtype) != x.dtype:
        raise Refused(f"rank {x.rank} of type {x.dtype} is not supported")
    bias, mask = (rest[i] if i < len(rest) else None for i in range(2))
    spatial = shape_of(node.outputs[0])[2:]
    axes = axes_of(node, x.shape[2:], spatial, weights.shape[2:])
    groups = attribute(node, "group", 1)
    mask = None if mask is None else ctx.in_memory(mask)
    sampling = Sampling(
        ctx.in_memory(x), ctx.in_memory(offsets), mask, attribute(node, "offset_group", 1), axes
    )
    filters = weights.shape[0] // groups
    samples = _samples(ctx, sampling, groups, spatial)
    matrix = reshape(ctx.dense(weights), (1, groups, filters, samples.shape[2]))

    def restore(index: Sequence[Expr]) -> list[Expr]:
        n, group, row, place = index
        return [n, group * filters + row, *unravel(place, spatial)]

    def finish(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> Expr:
        return value if bias is None else value + bias.read(k, [index[1]])

    multiply(ctx, node, Product(matrix, samples, restore), finish)


def _samples(ctx: Lowering, sampling: Sampling, groups: int, spatial: tuple[int, ...]) -> Tensor:
    """`[n, groups, channels of a group * taps, outputs]` in memory."""
    batch, channels = sampling.input.shape[:2]
    channels //= groups

    def read(k: KernelBuilder, index: Index) -> Expr:
        n, group, row, place = index
        channel, tap = unravel(row, [channels, sampling.taps])
        return sampling.sample(k, n, k.bind(group * channels + channel), tap, unravel(place, spatial))

    shape = (batch, groups, channels * sampling.taps, math.prod(spatial))
    return ctx.store(lazy(shape, sampling.input.dtype, read, cost=20))


OPERATORS: dict[str, Operator] = {"DeformConv": Anchor(lower_deform_conv)}

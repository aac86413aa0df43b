"""ConvTranspose, as plain convolutions: one for each phase of the output, over the taps that reach it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.conv import ConvKernel, pack_weights, pad_bias
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.conv_shape import choose_tile, flatten_pointwise
from graphopt.backends.kernels.geometry import Axis, Phase, transposed_phases
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.convolution import (
    FEW,
    Array,
    as_images,
    constant_of,
    direct_shape,
    scalar_source,
)
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute, shape_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.row_convolutions import RowConvolutions
from graphopt.backends.tensor import Tensor


@dataclass(frozen=True)
class Transposed:
    """The operands of a node. `weights` are `[channels * groups, filters, taps...]`."""

    input: Tensor
    weights: Tensor
    bias: Tensor | None
    groups: int
    phases: tuple[tuple[Phase, ...], ...]
    """The phases of every part: one for each spatial axis."""

    @property
    def channels(self) -> int:
        return self.weights.shape[0] // self.groups

    @property
    def filters(self) -> int:
        return self.weights.shape[1]

    def geometry(self, phases: Sequence[Phase]) -> Geometry:
        axes = tuple(phase.axis for phase in phases)
        return Geometry(self.input.shape[0], self.groups, self.channels, self.filters, axes)

    def fills_vectors(self, lanes: int) -> bool:
        """Whether the kernel with packed weights and lanes along output channels applies and is worth it."""
        constant = all(t is None or t.constant is not None for t in (self.weights, self.bias))
        aligned = self.filters > FEW if self.groups == 1 else self.filters % lanes == 0
        reached = all(phase.axis.kernel for phases in self.phases for phase in phases)
        return constant and aligned and reached and self.input.dtype == "float32" and self.input.rank <= 4


def lower_conv_transpose(ctx: Lowering, node: ir.Node) -> None:
    """ConvTranspose of any rank, type and number of groups; weights may be computed at run time."""
    x, weights, *rest = ctx.inputs(node)
    assert x is not None
    assert weights is not None
    if x.rank < 3:
        raise Refused("its input has no spatial axes")
    axes = transposed_axes(node, x.shape[2:], shape_of(node.outputs[0])[2:], weights.shape[2:])
    phases = tuple(itertools.product(*(transposed_phases(axis) for axis in axes)))
    operands = Transposed(x, weights, rest[0] if rest else None, attribute(node, "group", 1), phases)
    if ctx.lanes > 1 and operands.fills_vectors(ctx.lanes):
        _direct(ctx, node, operands)
    else:
        _rows(ctx, node, operands)


def transposed_axes(
    node: ir.Node, sizes: Sequence[int], out: Sequence[int], kernel: Sequence[int]
) -> tuple[Axis, ...]:
    """The spatial axes; `input` and `output` are those of the transposed convolution.

    With `output_shape` or `auto_pad` the padding follows from the output size; an odd one is larger at the end for
    SAME_UPPER and at the beginning otherwise.
    """
    rank = len(sizes)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    extra = attribute(node, "output_padding", [0] * rank)
    pads = attribute(node, "pads", [0] * (2 * rank))[:rank]
    mode = attribute(node, "auto_pad", "NOTSET")
    if "output_shape" in node.attributes or mode in ("SAME_UPPER", "SAME_LOWER"):
        full = [
            (size - 1) * stride + (extent - 1) * dilation + 1 + added
            for size, stride, extent, dilation, added in zip(
                sizes, strides, kernel, dilations, extra, strict=True
            )
        ]
        totals = [max(whole - wanted, 0) for whole, wanted in zip(full, out, strict=True)]
        pads = [total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals]
    elif mode == "VALID":
        pads = [0] * rank
    return tuple(Axis(*values) for values in zip(sizes, out, kernel, strides, pads, dilations, strict=True))


def _direct(ctx: Lowering, node: ir.Node, operands: Transposed) -> None:
    lanes = ctx.lanes
    source = scalar_source(ctx, operands.input, operands.geometry(operands.phases[0]))
    after = epilogue(ctx, node, lanes)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, lanes))
    bias = constant_of(operands.bias)
    with ctx.kernel("conv_transpose") as k:
        if not after.hole.size:
            return
        for phases in operands.phases:
            shape = flatten_pointwise(direct_shape(operands.geometry(phases)))
            tile = choose_tile(shape, ctx.core)
            (y, x) = [(1, 0)] * (2 - len(phases)) + [(phase.spread, phase.start) for phase in phases]
            ConvKernel(
                shape,
                tile,
                ctx.core,
                source,
                weights=ctx.constant_buffer(
                    pack_weights(_phase_weights(operands, phases), shape, tile, lanes)
                ),
                bias=None if bias is None else ctx.constant_buffer(pad_bias(bias, shape, lanes)),
                store=after.into(out),
                spread=(y, x),
            ).emit(k)


def _phase_weights(operands: Transposed, phases: Sequence[Phase]) -> Array:
    """The weights of the plain convolution of a phase, `[filters * groups, channels, kh, kw]`."""
    weights = as_images(operands.weights)
    slices = [slice(None)] * (2 - len(phases)) + [phase.slice for phase in phases]
    taps = np.flip(weights[:, :, slices[0], slices[1]], (2, 3))
    grouped = taps.reshape(operands.groups, operands.channels, *taps.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(grouped.reshape(-1, operands.channels, *taps.shape[2:]))


def _rows(ctx: Lowering, node: ir.Node, operands: Transposed) -> None:
    weights = ctx.strided(operands.weights)
    channels, filters = operands.channels, operands.filters

    def weight_of(phases: Sequence[Phase]) -> Callable[[KernelBuilder, Expr, Expr, Sequence[Expr]], Expr]:
        def weight(k: KernelBuilder, output: Expr, channel: Expr, taps: Sequence[Expr]) -> Expr:
            group = output // filters if operands.groups > 1 else 0
            original = [phase.tap(tap) for phase, tap in zip(phases, taps, strict=True)]
            return weights.reader(k, [group * channels + channel, output - group * filters, *original])

        return weight

    def place_of(phases: Sequence[Phase]) -> Callable[[Sequence[Expr]], list[Expr]]:
        return lambda index: [i * phase.spread + phase.start for i, phase in zip(index, phases, strict=True)]

    parts = [(operands.geometry(phases), weight_of(phases), place_of(phases)) for phases in operands.phases]
    ctx.twin(RowConvolutions)(ctx, node, operands.input, operands.bias).emit(parts)


OPERATORS: dict[str, Operator] = {"ConvTranspose": Anchor(lower_conv_transpose)}

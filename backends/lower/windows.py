"""Reads the geometry of sliding-window operators: pads, strides, dilations, auto_pad."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.window import Window
from graphopt.backends.lower.operator import attribute


def begin_pads(node: ir.Node, sizes: Sequence[int], out: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Padding before each spatial axis, from `pads` or `auto_pad`."""
    rank = len(sizes)
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * rank
    if mode == "NOTSET":
        return list(attribute(node, "pads", [0] * (2 * rank)))[:rank]
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    pads = []
    for size, count, extent, stride, dilation in zip(sizes, out, kernel, strides, dilations, strict=True):
        total = _same_padding(Axis(size, count, extent, stride, 0, dilation))
        pads.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return pads


def end_pads(node: ir.Node, axes: Sequence[Axis]) -> list[int]:
    """Padding after each spatial axis."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * len(axes)
    if mode == "NOTSET":
        return list(attribute(node, "pads", [0] * (2 * len(axes))))[len(axes) :]
    return [_same_padding(axis) - axis.pad for axis in axes]


def _same_padding(axis: Axis) -> int:
    """What auto_pad SAME adds in all, given the output size."""
    return max((axis.output - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 - axis.input, 0)


def axes_of(
    node: ir.Node, sizes: Sequence[int], out: Sequence[int], kernel: Sequence[int]
) -> tuple[Axis, ...]:
    """The spatial axes of a node."""
    rank = len(sizes)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    pads = begin_pads(node, sizes, out, kernel)
    return tuple(Axis(*values) for values in zip(sizes, out, kernel, strides, pads, dilations, strict=True))


def window(axes: Sequence[Axis]) -> Window:
    """The window over one or two axes; a single one becomes a row."""
    y, x = (Axis(1, 1, 1, 1, 0, 1), *axes) if len(axes) == 1 else axes
    return Window(
        (y.input, x.input),
        (y.output, x.output),
        (y.kernel, x.kernel),
        (y.stride, x.stride),
        (y.pad, x.pad),
        (y.dilation, x.dilation),
    )


def window_of(node: ir.Node, sizes: Sequence[int], out: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a node of one or two spatial axes."""
    return window(axes_of(node, sizes, out, kernel))

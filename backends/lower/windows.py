"""Reads the geometry of sliding-window operators: pads, strides, dilations, auto_pad."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

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
        total = max((count - 1) * stride + (extent - 1) * dilation + 1 - size, 0)
        pads.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return pads


def window_of(node: ir.Node, sizes: Sequence[int], out: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a node of one or two spatial axes; one-dimensional ones become a single row."""
    rank = len(sizes)

    def pair(values: Sequence[int], fill: int) -> tuple[int, int]:
        return (fill, values[0]) if rank == 1 else (values[0], values[1])

    return Window(
        pair(sizes, 1),
        pair(out, 1),
        pair(kernel, 1),
        pair(attribute(node, "strides", [1] * rank), 1),
        pair(begin_pads(node, sizes, out, kernel), 0),
        pair(attribute(node, "dilations", [1] * rank), 1),
    )

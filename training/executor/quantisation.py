"""QuantizeLinear and DequantizeLinear, per tensor, axis or block, through which gradients flow.

Forward they are what ONNX defines. Backward, rounding is taken for the identity, the straight-through estimator of Bengio et al.
2013, and clipping stops the gradient. So that gradients can pass, the integers between the two (called levels) are held as floats.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from graphopt.training.executor.operator import DTYPES, Compute, Maker, Node, Tensor, require

LEVELS = {
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}
"""Types that values are quantised to -> their smallest and largest number."""

CARRIERS = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "Reshape",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that give back elements of their inputs, so that levels pass through them as floats."""


class _Round(torch.autograd.Function):
    """To the nearest integer, halves to the even one; the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def round_through(x: Tensor) -> Tensor:
    """Rounded half to even; the gradient is that of the identity."""
    return _Round.apply(x)


def level_type(node: Node) -> ir.DataType:
    """What a QuantizeLinear quantises to: the type of its zero point, else what it says itself, else uint8."""
    zero = node.types[2] if len(node.types) > 2 else None
    said = node.get("output_dtype", 0)
    if zero is not None:
        return zero
    return ir.DataType(said) if said else ir.DataType.UINT8


def _quantize(node: Node) -> Compute:
    dtype, axis, block = level_type(node), node.get("axis", 1), node.get("block_size", 0)
    require(dtype in LEVELS, f"quantising to {dtype.name} is not supported")
    low, high = LEVELS[dtype]

    def quantize(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        rounded = round_through(x / spread(scale, x, axis, block))
        shifted = rounded if zero is None else rounded + spread(zero, x, axis, block)
        return shifted.clamp(low, high)

    return quantize


def _dequantize(node: Node) -> Compute:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    require(
        node.types[0] is None or node.types[0] in DTYPES, f"dequantising {node.types[0]} is not supported"
    )

    def dequantize(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        levels = x.to(scale.dtype)
        centred = levels if zero is None else levels - spread(zero, x, axis, block)
        return centred * spread(scale, x, axis, block)

    return dequantize


def spread(parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point in a shape that fits the elements of `x`."""
    if parameter.numel() == 1 and not block:
        return parameter.reshape(())
    if block:
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


OPERATORS: dict[str, Maker] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}

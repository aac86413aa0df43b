"""The numbers that the integers of a constant stand for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir
import torch

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.training.executor.building import to_tensor
from graphopt.training.executor.operator import Tensor
from graphopt.training.executor.quantisation import LEVELS, spread


@dataclass(frozen=True)
class Grid:
    """Integers `low` .. `high` stand for `(integer - zeros) * scales`; scales and zeros broadcast against the constant."""

    scales: Tensor
    zeros: Tensor
    low: int
    high: int

    @classmethod
    def of(cls, levels: Tensor, scales: Tensor, zeros: Tensor) -> Grid:
        """The one that integers are on. Its range is the one that they use, around zero where there are no zero points."""
        low, high = int(levels.min()), int(levels.max())
        if not zeros.any():
            low, high = min(low, -high), max(high, -low)
        return cls(scales, zeros, low, high)

    def exact(self, values: Tensor) -> Tensor:
        """What would stand for values if it need not be integer."""
        return values / self.scales + self.zeros

    def values(self, levels: Tensor) -> Tensor:
        """What levels, cut to the range, stand for."""
        return (self.cut(levels) - self.zeros) * self.scales

    def cut(self, levels: Tensor) -> Tensor:
        """Levels within the range."""
        return torch.clamp(levels, self.low, self.high)


def constant_levels(node: ir.Node | None, types: Collection[ir.DataType] = LEVELS.keys()) -> ir.Value | None:
    """The integers that a DequantizeLinear makes floats of, if they are constant and of one of these types."""
    if node is None or node.op_type != "DequantizeLinear":
        return None
    found = edit.tensor(node.inputs[0])
    return node.inputs[0] if found is not None and found.dtype in types else None


def grid_of(node: ir.Node) -> Grid | None:
    """That of a DequantizeLinear, if all it reads is constant."""
    levels, scales = (floats_of(value) for value in node.inputs[:2])
    if levels is None or scales is None:
        return None
    zeros = floats_of(node.inputs[2]) if len(node.inputs) > 2 else torch.zeros_like(scales)
    if zeros is None:
        return None
    axis, block = attribute(node, "axis"), attribute(node, "block_size") or 0
    return Grid.of(
        levels, *(spread(each, levels, 1 if axis is None else axis, block) for each in (scales, zeros))
    )


def floats_of(value: ir.Value | None) -> Tensor | None:
    """A constant as floats."""
    found = edit.tensor(value)
    return None if found is None else to_tensor(found, torch.float32).float()

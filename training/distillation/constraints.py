"""What must not be lost while a student learns: zeros stay zero, integers stay integers, few different ones stay few.

Shapes stay by themselves, and so does which weights share a value: Gather(codebook, indices) is differentiable in its codebook.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch
from torch import nn

from graphopt.model import edit
from graphopt.training.executor.operator import Tensor
from graphopt.training.executor.quantisation import LEVELS, round_through
from graphopt.training.rounding.grid import Grid, constant_levels, floats_of, grid_of

SPARSE = 0.5
"""Share of zeros among integers from which on they are kept: below, rounding alone may have made them."""

FEW_LEVELS, MANY_WEIGHTS = 128, 1024
"""Different levels up to which, of so many weights or more, others are not used: they were clustered."""

BIASES = {ir.DataType.INT32: 1 << 30}
"""Types of integers whose range is no limit -> the largest that floats count to without leaving it."""


@dataclass(frozen=True)
class Mask:
    """Zeros of a weight that stay: those of pruned weights, in whatever pattern, and those of codebooks."""

    weight: Tensor
    kept: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Mask | None:
        """None where there are no zeros, or nothing else."""
        kept = weight.detach() != 0
        return None if kept.all() or not kept.any() else cls(weight, kept.to(weight.dtype))

    def apply(self) -> None:
        """Makes zeros of them again."""
        with torch.no_grad():
            self.weight.mul_(self.kept)


class Levels(nn.Module):
    """Integers that stand for weights. Floats behind them learn, and are rounded in every step; rounding passes gradients on.

    `name` is that of the initializer, `value` that of the weights that it is dequantised to.
    """

    def __init__(self, name: str, value: str, levels: Tensor, grid: Grid) -> None:
        super().__init__()
        self.name, self.value = name, value
        self._low, self._high = grid.low, grid.high
        self.register_buffer("scales", grid.scales)
        self.register_buffer("zeros", grid.zeros)
        self.weight = nn.Parameter(grid.values(levels))
        used = levels != grid.zeros
        sparse = float(used.float().mean()) <= 1 - SPARSE and bool(used.any())
        self.register_buffer("used", used.float() if sparse else None)
        different = levels.unique()
        clustered = levels.numel() >= MANY_WEIGHTS and len(different) <= FEW_LEVELS
        self.register_buffer("different", different if clustered else None)

    def forward(self) -> Tensor:
        """The weights, each of them on the grid."""
        exact = self._grid.exact(self._weight)
        rounded = (
            round_through(exact)
            if self.different is None
            else exact + (self._nearest(exact) - exact).detach()
        )
        return self._grid.values(rounded)

    def levels(self) -> Tensor:
        """The integers that they are."""
        with torch.no_grad():
            return self._grid.cut(self._nearest(self._grid.exact(self._weight)))

    def _nearest(self, exact: Tensor) -> Tensor:
        """The next integer, of those that are used where they are few."""
        if self.different is None:
            return exact.round()
        middles = (self.different[1:] + self.different[:-1]) / 2
        return self.different[torch.bucketize(exact.detach(), middles)]

    @property
    def _weight(self) -> Tensor:
        return self.weight if self.used is None else self.weight * self.used

    @property
    def _grid(self) -> Grid:
        return Grid(self.scales, self.zeros, self._low, self._high)


def find_levels(model: ir.Model) -> Iterator[Levels]:
    """Of all constants of a model in normal form that are dequantised."""
    for node in model.graph:
        constant = constant_levels(node, LEVELS.keys() | BIASES.keys())
        grid = None if constant is None else grid_of(node)
        levels = floats_of(constant)
        if constant is None or grid is None or levels is None or levels.numel() < 2:
            continue
        if constant.dtype in BIASES:
            grid = replace(grid, low=-BIASES[constant.dtype], high=BIASES[constant.dtype])
        yield Levels(constant.name or "", node.outputs[0].name or "", levels, grid)


def codebooks(model: ir.Model) -> set[str]:
    """Names of the initializers whose elements are shared out among weights, chosen by constants."""
    return {
        name
        for name, value in model.graph.initializers.items()
        if any(use.idx == 0 and _chooses(use.node) for use in value.uses())
    }


def _chooses(node: ir.Node) -> bool:
    """Whether it looks up values by constant indices, which may be stored in fewer bits."""
    if node.op_type not in ("Gather", "GatherElements") or node.inputs[1] is None:
        return False
    source = node.inputs[1].producer()
    indices = source.inputs[0] if source is not None and source.op_type == "Cast" else node.inputs[1]
    return edit.tensor(indices) is not None


def has_zeros_to_keep(name: str, weight: Tensor, books: set[str]) -> bool:
    """Whether zeros of a weight mean something: in matrices, filters and codebooks, not in biases and scales."""
    return weight.ndim > 1 or name in books

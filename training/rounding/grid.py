"""The numbers that the integers of a constant stand for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphopt.training.executor.operator import Tensor


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

"""Windows that slide over an image: where padding goes, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.training.executor.operator import Node, Tensor


@dataclass(frozen=True)
class Windows:
    """The attributes that convolutions and pools share; None where the rank decides."""

    auto_pad: str
    pads: Sequence[int] | None
    strides: Sequence[int] | None
    dilations: Sequence[int] | None

    @classmethod
    def of(cls, node: Node) -> Windows:
        """Those of a node."""
        return cls(
            node.get("auto_pad", "NOTSET"), node.get("pads"), node.get("strides"), node.get("dilations")
        )

    def steps(self, rank: int) -> tuple[list[int], list[int]]:
        """Strides and dilations along every axis."""
        return list(self.strides or [1] * rank), list(self.dilations or [1] * rank)

    def padding(self, extents: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
        """What is added before and behind each axis of an image."""
        rank = len(kernel)
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            strides, dilations = self.steps(rank)
            totals = [
                max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
                for n, k, s, d in zip(extents, kernel, strides, dilations, strict=True)
            ]
            return [shared(total, self.auto_pad) for total in totals]
        pads = [0] * (2 * rank) if self.pads is None or self.auto_pad == "VALID" else list(self.pads)
        return list(zip(pads[:rank], pads[rank:], strict=True))


def shared(total: int, auto_pad: str) -> tuple[int, int]:
    """Padding before and behind; the odd one goes behind with SAME_UPPER."""
    less = total // 2
    return (total - less, less) if auto_pad == "SAME_LOWER" else (less, total - less)


def extents_of(image: Tensor) -> list[int]:
    """The axes behind batch and channels."""
    return list(image.shape[2:])


def for_torch(padding: Sequence[tuple[int, int]]) -> list[int]:
    """As `torch.nn.functional.pad` takes it: the last axis first."""
    return [side for pair in reversed(padding) for side in pair]

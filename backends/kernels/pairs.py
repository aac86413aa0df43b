"""Products of halves, two of them added to every float32 lane at once: a pair of activations, the same for all lanes, times a pair
of weights for each. Halves are handled as their bits, pairs of them as float32 that nobody calculates with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.codegen.inline import PAIR, pair_products
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.core import Core, HalfDot


@dataclass(frozen=True)
class Pairs:
    """The arithmetic of a core for halves."""

    half: HalfDot
    lanes: int
    by_lane: bool
    """Whether the instruction takes a pair from a lane of a register."""

    @classmethod
    def of(cls, core: Core) -> Pairs:
        """Those of a core that has the instruction."""
        assert isinstance(core.half, HalfDot)
        return cls(core.half, core.lanes, core.by_lane)

    @property
    def unit(self) -> int:
        """Halves of a pair."""
        return PAIR

    @property
    def sums(self) -> str:
        """Dtype of a sum."""
        return "float32"

    @property
    def element(self) -> str:
        """Dtype of a weight before it is packed."""
        return "uint16"

    @property
    def weights_dtype(self) -> str:
        """Of packed weights."""
        return "uint16"

    @property
    def step(self) -> int:
        """Packed weights of one vector of filters and one pair."""
        return PAIR * self.lanes

    def pack(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`[..., vectors * lanes, 2]` as it is: a lane's pair lies together."""
        return weights

    def scalar(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The pair of activations at `at`, for all lanes."""
        return [
            k.bind(
                tirx.Broadcast(tirx.op.reinterpret("float32", k.load_vector(buffer, at, PAIR)), self.lanes)
            )
        ]

    def vector(self, k: KernelBuilder, buffer: Buffer, at: Expr, count: int) -> Expr:
        """`count` pairs of activations from `at`."""
        return k.bind(tirx.op.reinterpret(f"float32x{count}", k.load_vector(buffer, at, PAIR * count)))

    def operands(self, k: KernelBuilder, pair: Expr) -> list[Expr]:
        """A pair that came from such a vector, for all lanes."""
        return [pair]

    def weights(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The pairs of weights of a vector of filters, which start at `at`."""
        bits = k.load_vector(buffer, at, self.step)
        return [k.bind(tirx.op.reinterpret(f"float32x{self.lanes}", bits))]

    def add(self, k: KernelBuilder, total: Expr, scalar: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        """`total` and the products; the operand that may be a lane comes last."""
        (right,), (left,) = scalar, weights
        function = pair_products(self.half.intrinsic, self.half.element, self.lanes)
        return k.call(function, f"float32x{self.lanes}", total, left, right)

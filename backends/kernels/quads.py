"""Products of bytes, four of them added to every int32 lane at once: a quad of activations, the same for all lanes, times a
quad of weights for each.

Activations that have the other signedness than the instruction wants are moved by 128 as they are loaded, which flips their
highest bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.core import Core, Dot
from graphopt.backends.kernels.lanes import lane_of

QUAD = 4

SIGNS = -0x7F7F7F80
"""The highest bits of four bytes, as an int32."""

EVEN = 0x00FF00FF
"""The first and the third of four bytes."""


@dataclass(frozen=True)
class Quads:
    """The arithmetic of a core for activations of one dtype."""

    dot: Dot
    lanes: int
    flips: bool
    """Whether activations are moved by 128."""
    unit: ClassVar[int] = QUAD

    @classmethod
    def of(cls, core: Core, dtype: str) -> Quads:
        """Those of a core that has the instruction."""
        assert core.dot is not None
        return cls(core.dot, core.lanes, core.dot.signed != (dtype == "int8"))

    @property
    def moved(self) -> int:
        """What is added to activations."""
        return (-128 if self.dot.signed else 128) if self.flips else 0

    @property
    def element(self) -> str:
        """Dtype of a weight."""
        return "int8"

    @property
    def weights_dtype(self) -> str:
        """Of packed weights."""
        return "int16" if self.dot.pairs else "int8"

    @property
    def step(self) -> int:
        """Packed weights of one vector of filters and one quad."""
        return QUAD * self.lanes

    def pack(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`[..., vectors * lanes, 4]` int8 as `step` elements a vector; pairs hold the even bytes of all lanes, then the odd ones."""
        if not self.dot.pairs:
            return weights
        lanes = weights.astype(np.int16).reshape(*weights.shape[:-2], -1, self.lanes, 2, 2)
        return np.moveaxis(lanes, -1, -3).reshape(weights.shape)

    def scalar(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The quad of activations at `at`, for all lanes, as the operands of the instruction."""
        word = tirx.op.reinterpret("int32", k.load_vector(buffer, at, QUAD))
        return self._operands(k, tirx.Broadcast(word, self.lanes))

    def words(self, k: KernelBuilder, buffer: Buffer, at: Expr, count: int) -> Expr:
        """`count` quads of activations that lie next to each other from `at`, over and over again up to a whole vector."""
        quads = load_repeated(k, buffer, at, count, self.lanes)
        return k.bind(self._flipped(tirx.op.reinterpret(f"int32x{self.lanes}", quads)))

    def lane(self, words: Expr, number: int, width: int) -> Expr:
        """One of the quads of `words` for `width` lanes, as the operand of an instruction that takes it by its lane."""
        return tirx.op.reinterpret(f"int8x{QUAD * width}", lane_of(words, number, width))

    def weights(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The weights of a vector of filters, which start at `at`, as the operands of the instruction."""
        if not self.dot.pairs:
            return [k.bind(k.load_vector(buffer, at, self.step))]
        half = self.step // 2
        return [k.bind(k.load_vector(buffer, at + part * half, half)) for part in range(2)]

    @property
    def ones(self) -> list[Expr]:
        """Weights that are all one."""
        count = self.step // 2 if self.dot.pairs else self.step
        return [tirx.Broadcast(const(1, self.weights_dtype), count)] * (2 if self.dot.pairs else 1)

    def add(self, total: Expr, scalar: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
        """`total` and the products."""
        kind = f"int32x{self.lanes}"
        name = self.dot.intrinsic
        for left, right in zip(scalar, weights, strict=True):
            if self.dot.pairs:
                total = total + tirx.op.call_llvm_pure_intrin(kind, name, left, right)
            else:
                factors = (right, left) if self.dot.by_lane else (left, right)
                total = tirx.op.call_llvm_pure_intrin(kind, name, total, *factors)
        return total

    def _operands(self, k: KernelBuilder, words: Expr) -> list[Expr]:
        words = self._flipped(words)
        if not self.dot.pairs:
            return [k.bind(self._bytes(words))]
        words = k.bind(words)
        even = tirx.Broadcast(const(EVEN, "int32"), self.lanes)
        odd = tirx.op.shift_right(words, tirx.Broadcast(const(8, "int32"), self.lanes))
        kind = f"int16x{2 * self.lanes}"
        return [k.bind(tirx.op.reinterpret(kind, tirx.op.bitwise_and(part, even))) for part in (words, odd)]

    def _flipped(self, words: Expr) -> Expr:
        if not self.flips:
            return words
        return tirx.op.bitwise_xor(words, tirx.Broadcast(const(SIGNS, "int32"), self.lanes))

    def _bytes(self, words: Expr) -> Expr:
        return tirx.op.reinterpret(f"int8x{self.step}", words)


def load_repeated(k: KernelBuilder, buffer: Buffer, at: Expr, count: int, lanes: int) -> Expr:
    """A vector of `lanes` quads: the `count` from `at`, over and over again."""
    quads = k.load_vector(buffer, at, QUAD * count)
    if count == lanes:
        return quads
    return tirx.Broadcast(tirx.op.reinterpret(f"int{8 * QUAD * count}", quads), lanes // count)

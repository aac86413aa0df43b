"""Products of bytes by instructions for small matrices: two rows of eight bytes of activations by two columns of eight weights.

A vector of sums is a matrix of two rows and two columns. Two of them, for the columns of a whole vector, hold as many sums as two
rows of that vector, into which they are brought in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.core import Core, MatrixDot
from graphopt.backends.kernels.quads import load_repeated

OCTET, PAIR = 8, 2

WORD, WORDS = 4, 4
"""Bytes of a word, and words of a register."""

Place = tuple[Expr, int]
"""A register, and a lane of it."""


@dataclass(frozen=True)
class Octets:
    """The arithmetic of a core for activations of one dtype."""

    intrinsic: str
    lanes: int
    unit: ClassVar[int] = OCTET
    moved: ClassVar[int] = 0
    element: ClassVar[str] = "int8"
    weights_dtype: ClassVar[str] = "int8"

    @classmethod
    def of(cls, core: Core, dtype: str) -> Octets:
        """Those of a core that has the instruction."""
        assert isinstance(core.dot, MatrixDot)
        return cls(core.dot.intrinsic if dtype == "int8" else core.dot.unsigned, core.lanes)

    @property
    def step(self) -> int:
        """Packed weights of one vector of filters and eight channels."""
        return OCTET * self.lanes

    def pack(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`[..., vectors * lanes, 8]`: as they are, every two filters are columns of a matrix."""
        return weights

    def weights(self, k: KernelBuilder, buffer: Buffer, at: Expr) -> list[Expr]:
        """The weights of a vector of filters, which start at `at`, two filters in each."""
        half = self.step // PAIR
        return [k.bind(k.load_vector(buffer, at + part * half, half)) for part in range(PAIR)]

    def words(self, k: KernelBuilder, buffer: Buffer, at: Expr, count: int) -> Expr:
        """`count` words of four activations from `at`, over and over again up to a whole vector."""
        return k.bind(
            tirx.op.reinterpret(f"int32x{self.lanes}", load_repeated(k, buffer, at, count, self.lanes))
        )

    def ones(self, words: int) -> Expr:
        """Weights that are one for the first words of each octet, and zero for the others."""
        octet = const(int.from_bytes(bytes([1] * (WORD * words)), "little"), "int64")
        return tirx.op.reinterpret(f"int8x{PAIR * OCTET}", tirx.Broadcast(octet, PAIR))

    def add(self, total: Expr, rows: Expr, weights: Expr) -> Expr:
        """`total` and the products of two rows, as four words, and two columns."""
        octets = tirx.op.reinterpret(f"int8x{PAIR * OCTET}", rows)
        return tirx.op.call_llvm_pure_intrin(f"int32x{self.lanes}", self.intrinsic, total, octets, weights)


def rows_of_sums(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Both rows of a matrix of four columns, of which `left` and `right` hold two each."""
    first, second = (tirx.Shuffle([left, right], lanes) for lanes in ([0, 1, 4, 5], [2, 3, 6, 7]))
    return first, second


def pair_of_rows(rows: Sequence[Sequence[Place]], zero: Place) -> Expr:
    """One row or two of two words each, as registers of four words; a row that is not there has zeros."""
    words = [word for row in rows for word in row]
    words += [zero] * (WORDS - len(words))
    registers: list[Expr] = []
    lanes = []
    for register, lane in words:
        known = next((i for i, other in enumerate(registers) if register.same_as(other)), len(registers))
        registers += [register] if known == len(registers) else []
        lanes.append(WORDS * known + lane)
    return tirx.Shuffle(registers, lanes)

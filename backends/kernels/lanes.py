"""Scalars that multiply vectors: broadcast from memory, or taken out of a lane of a register."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from graphopt.backends.codegen.builder import Expr

Scalar = Callable[[int], Expr]
"""Gives a scalar as a vector of so many equal lanes."""


def lane_of(vector: Expr, lane: int, width: int) -> Expr:
    """Lane `lane` of a vector, `width` times. LLVM multiplies by it in place: `fmla v0.4s, v1.4s, v2.s[lane]`."""
    return tirx.Shuffle([vector], [lane] * width)

"""Applies a constant matrix to vectors in registers with few operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const


def combine(
    k: KernelBuilder, matrix: np.ndarray[Any, Any], vectors: Sequence[Expr], lanes: int
) -> list[Expr]:
    """`matrix @ vectors`. Rows that differ only in the signs of some columns share the sums of both kinds of columns."""
    results: list[Expr] = []
    row = 0
    while row < len(matrix):
        if row + 1 < len(matrix) and np.array_equal(np.abs(matrix[row]), np.abs(matrix[row + 1])):
            equal = matrix[row] == matrix[row + 1]
            even = _sum(k, np.where(equal, matrix[row], 0), vectors, lanes)
            odd = _sum(k, np.where(equal, 0, matrix[row]), vectors, lanes)
            results += [k.bind(even + odd), k.bind(even - odd)]
            row += 2
        else:
            results.append(_sum(k, matrix[row], vectors, lanes))
            row += 1
    return results


def _sum(k: KernelBuilder, factors: np.ndarray[Any, Any], vectors: Sequence[Expr], lanes: int) -> Expr:
    """The vectors scaled and added up; those with factor 1 or -1 are not multiplied."""
    terms = sorted(
        ((float(f), v) for f, v in zip(factors, vectors, strict=True) if f), key=lambda term: term[0] != 1
    )
    total: Expr = None
    for factor, vector in terms:
        if total is None:
            total = vector if factor == 1 else vector * _broadcast(factor, lanes)
        elif abs(factor) == 1:
            total = total + vector if factor == 1 else total - vector
        else:
            total = total + vector * _broadcast(factor, lanes)
    return _broadcast(0.0, lanes) if total is None else k.bind(total)


def _broadcast(value: float, lanes: int) -> Expr:
    return tirx.Broadcast(const(value, "float32"), lanes)

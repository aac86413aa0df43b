"""Reductions inside a kernel: fold a range of elements into one value with vector accumulators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const

Element = Callable[[Expr], Expr]


@dataclass(frozen=True)
class Fold:
    """An associative operation: `initial(dtype)` is neutral for `combine`."""

    initial: Callable[[str], Any]
    combine: Callable[[Expr, Expr], Expr]


def _lowest(dtype: str) -> Any:
    kind = np.dtype(dtype).kind
    return -np.inf if kind == "f" else False if kind == "b" else np.iinfo(dtype).min


def _highest(dtype: str) -> Any:
    kind = np.dtype(dtype).kind
    return np.inf if kind == "f" else True if kind == "b" else np.iinfo(dtype).max


SUM = Fold(lambda dtype: 0, lambda a, b: a + b)
PRODUCT = Fold(lambda dtype: 1, lambda a, b: a * b)
MAXIMUM = Fold(_lowest, lambda a, b: tirx.op.max(a, b))
MINIMUM = Fold(_highest, lambda a, b: tirx.op.min(a, b))


def fold_row(k: KernelBuilder, fold: Fold, extent: int, dtype: str, lanes: int, element: Element) -> Expr:
    """`element(0) ... element(extent - 1)` folded into one value; elements next to each other go into vector lanes."""
    vectors = extent // lanes
    total = k.local(1, dtype)
    initial = const(fold.initial(dtype), dtype)
    k.assign(total, 0, initial)
    if vectors:
        partial = k.local(lanes, dtype)
        k.assign(partial, 0, tirx.Broadcast(initial, lanes), lanes)
        with k.loop(vectors, "serial", "v") as v, k.loop(lanes, "vector", "lane") as lane:
            k.assign(partial, lane, fold.combine(partial[lane], element(v * lanes + lane)))
        for i in range(lanes):
            k.assign(total, 0, fold.combine(total[0], partial[i]))
    if extent > vectors * lanes:
        with k.loop(extent - vectors * lanes, "serial", "rest") as rest:
            k.assign(total, 0, fold.combine(total[0], element(rest + vectors * lanes)))
    return k.bind(total[0])


def map_row(k: KernelBuilder, extent: int, lanes: int, body: Callable[[Expr], None]) -> None:
    """Run `body` for every position of a row, in vectors where whole ones fit."""
    vectors = extent // lanes
    if vectors:
        with k.loop(vectors, "serial", "v") as v, k.loop(lanes, "vector", "lane") as lane:
            body(v * lanes + lane)
    if extent > vectors * lanes:
        with k.loop(extent - vectors * lanes, "serial", "rest") as rest:
            body(rest + vectors * lanes)

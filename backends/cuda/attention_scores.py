"""What becomes of the scores of an attention: scaled, masked, and as powers of two of their difference from the largest one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.instructions import INVERSE, LARGER, POWER

LOG2_E = 1 / math.log(2)

LOWEST = float(np.finfo(np.float32).min)
"""That of pairs which attend, so that differences from it are finite or, of pairs that do not, minus infinity."""

CHAINS = 4
"""Values that are added up or compared side by side."""

Mask = Callable[[KernelBuilder, Sequence[Expr]], Expr]


@dataclass(frozen=True)
class Scores:
    """Of an attention with `shape` of batch, heads, queries and keys. `mask` gives what is added to a scaled score at an index
    `[batch, head, query, key]`.

    Without one the scale is left to the exponents, as of products the largest is also that of scores."""

    shape: tuple[int, int, int, int]
    scale: float
    mask: Mask | None
    is_causal: bool
    """Whether a query attends to no keys beyond its own place."""

    @property
    def are_products(self) -> bool:
        """Whether scores of pairs that exist are products as they are."""
        return self.is_plain and not self.is_causal

    @property
    def is_plain(self) -> bool:
        return self.mask is None and self.scale > 0

    @property
    def factor(self) -> Expr:
        """By which differences of scores are multiplied when they become exponents."""
        return const(LOG2_E * (self.scale if self.is_plain else 1.0), "float32")

    @property
    def lowest(self) -> Expr:
        """Below which no score is of a pair that attends; its exponent is finite where products are not masked."""
        return const(LOWEST if self.mask else LOWEST / max(LOG2_E * self.scale, 2.0), "float32")

    def score(
        self, k: KernelBuilder, product: Expr, index: Sequence[Expr], is_behind: tuple[bool, bool]
    ) -> Expr:
        """The score of a pair, whose query and key may lie behind the last one where those say so."""
        n, head, query, key = index
        _, _, queries, keys = self.shape
        value = product if self.is_plain else product * const(self.scale, "float32")
        if self.mask is not None:
            row = k.bind(tirx.op.min(query, const(queries - 1, "int32"))) if is_behind[0] else query
            place = k.bind(tirx.op.min(key, const(keys - 1, "int32"))) if is_behind[1] else key
            value = value + self.mask(k, [n, head, row, place])
        tests = [key < keys] if is_behind[1] else []
        tests += [key <= query] if self.is_causal else []
        return tirx.Select(tirx.op.all(*tests), value, const(-np.inf, "float32")) if tests else value

    def powers(self, k: KernelBuilder, scores: Sequence[Expr], best: Expr) -> list[Expr]:
        """Of the difference of scores from the largest one. Where all are as low as can be, each is one."""
        if self.mask is not None:
            return [self.power(k, score - best) for score in scores]
        scaled = k.bind(best * self.factor)
        return [k.call(POWER, "float32", score * self.factor - scaled) for score in scores]

    def power(self, k: KernelBuilder, difference: Expr) -> Expr:
        return k.call(POWER, "float32", difference * self.factor)


def larger(k: KernelBuilder, x: Expr, y: Expr) -> Expr:
    return k.bind(k.call(LARGER, "float32", x, y))


def added(k: KernelBuilder, x: Expr, y: Expr) -> Expr:
    return k.bind(x + y)


def folded(
    k: KernelBuilder, values: Sequence[Expr], combine: Callable[[KernelBuilder, Expr, Expr], Expr]
) -> Expr:
    """By a few chains, so that none waits for another."""
    chains = list(values[:CHAINS])
    for i, value in enumerate(values[CHAINS:]):
        chains[i % CHAINS] = combine(k, chains[i % CHAINS], value)
    while len(chains) > 1:
        chains = [
            combine(k, *chains[i : i + 2]) if i + 1 < len(chains) else chains[i]
            for i in range(0, len(chains), 2)
        ]
    return chains[0]


def inverse(k: KernelBuilder, total: Expr) -> Expr:
    """Zero for a query that attends to nothing."""
    zero = const(0.0, "float32")
    return k.bind(tirx.Select(total > zero, k.call(INVERSE, "float32", total), zero))

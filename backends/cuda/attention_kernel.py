"""What kernels of attention have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.cuda.attention_scores import Scores
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.kernels.window import split_index
from graphopt.backends.tensor import Storage


@dataclass(frozen=True)
class AttentionKernel(ABC):
    """Emits the kernel of `query [batch, heads, queries, size]`, `key` and `value [batch, heads, keys, value_size]`.

    `store` takes results at an index `[batch, head, query, element]`.
    """

    query: Storage
    key: Storage
    value: Storage
    scores: Scores
    size: int
    value_size: int
    group: int
    """Neighbouring heads of queries that share one of keys and values."""
    store: Callable[[KernelBuilder, Sequence[Expr], Expr], None]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, heads, queries, keys."""
        return self.scores.shape

    @property
    def macs(self) -> int:
        return math.prod(self.shape) * (self.size + self.value_size)

    @property
    @abstractmethod
    def team_queries(self) -> int:
        """Queries of a team."""

    @abstractmethod
    def attend(self, k: DeviceBuilder, n: Expr, head: Expr, first: Expr) -> None:
        """The work of a team: queries of a head from the first one on."""

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        batch, heads, queries, _ = self.shape
        counts = [batch, heads, -(-queries // self.team_queries)]
        with k.loop(math.prod(counts), "independent", "team") as number:
            n, head, first = (k.bind(i) for i in split_index(number, counts))
            self.attend(k, n, head, k.bind(first * self.team_queries))

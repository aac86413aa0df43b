"""Attention of halves on tensor cores, in one kernel that never writes the scores.

A warp has 16 queries. Keys and values come to shared memory block by block; of the scores of a block it keeps the largest and the sum
of exponentials so far, and scales what it has added up whenever a larger one comes (FlashAttention-2, arXiv:2307.08691).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.instructions import (
    COMMIT,
    COPY,
    LOAD,
    LOAD_TRANSPOSED,
    POWER,
    await_copies,
    multiply,
    pack,
)
from graphopt.backends.cuda.tensor_elements import Element
from graphopt.backends.kernels.window import split_index
from graphopt.backends.tensor import Storage

ROWS, COLUMNS, DEPTH = 16, 8, 16
"""Of one instruction."""

BLOCK = 64
"""Keys in a step."""

CHUNK = 8

STAGES = 2

LARGEST = 128
"""Elements of a query or a value that a warp has registers for."""

LOG2_E = 1 / math.log(2)

LOWEST = -3.0e38
"""Below all scores of pairs that attend, so that differences from it are finite."""

ENOUGH = 100
"""Teams that keep most multiprocessors busy."""

Mask = Callable[[KernelBuilder, Sequence[Expr]], Expr]


@dataclass(frozen=True)
class TensorAttention:
    """Emits the kernel of `query [batch, heads, queries, size]`, `key` and `value [batch, heads, keys, value_size]`.

    `mask` gives what is added to a score, and `store` takes results, both at an index `[batch, head, query, key or element]`.
    """

    element: Element
    """Of two bytes."""
    query: Storage
    key: Storage
    value: Storage
    shape: tuple[int, int, int, int]
    """Batch, heads, queries, keys."""
    size: int
    value_size: int
    scale: float
    mask: Mask | None
    store: Callable[[KernelBuilder, Sequence[Expr], Expr], None]

    def emit(self, k: KernelBuilder) -> None:
        assert isinstance(k, DeviceBuilder)
        batch, heads, queries, _ = self.shape
        warps = next((w for w in (4, 2) if batch * heads * -(-queries // (w * ROWS)) >= ENOUGH), 2)
        counts = [batch, heads, -(-queries // (warps * ROWS))]
        with k.loop(math.prod(counts), "independent", "team") as number:
            n, head, first = (k.bind(i) for i in split_index(number, counts))
            _Team(self, k, warps, n, head, k.bind(first * (warps * ROWS))).run()

    @property
    def macs(self) -> int:
        return math.prod(self.shape) * (self.size + self.value_size)


class _Team:
    """The work of one team: `warps` times 16 queries of a head."""

    def __init__(
        self, attention: TensorAttention, k: DeviceBuilder, warps: int, n: Expr, head: Expr, first: Expr
    ) -> None:
        self.attention, self.k, self.n, self.head, self.first = attention, k, n, head, first
        self.warps, self.threads = warps, warps * WARP
        self.multiply = multiply(attention.element)
        self.thread = k.team(self.threads)
        self.lane = k.bind(tirx.op.truncmod(self.thread, WARP))
        self.own = k.bind(tirx.op.truncdiv(self.thread, WARP) * ROWS)
        self.low, self.high = (
            k.bind(tirx.op.truncmod(self.lane, 16)),
            k.bind(tirx.op.truncdiv(self.lane, 16) * 8),
        )
        self.row = k.bind(first + self.own + tirx.op.truncdiv(self.lane, 4))
        self.column = k.bind(tirx.op.truncmod(self.lane, 4) * 2)
        self.key_row, self.value_row = attention.size + CHUNK, attention.value_size + CHUNK
        self.values_at = BLOCK * self.key_row
        self.stage_size = self.values_at + BLOCK * self.value_row
        self.queries_at = STAGES * self.stage_size
        self.memory = k.overlay(self.queries_at + warps * ROWS * self.key_row, attention.element.dtype)

    @property
    def steps(self) -> int:
        return -(-self.attention.shape[3] // BLOCK)

    def run(self) -> None:
        k, a = self.k, self.attention
        queries, keys = a.shape[2], a.shape[3]
        rows = self.warps * ROWS
        self._copy(a.query, self.first, queries, self.queries_at, rows, a.size)
        self._copy_step(const(0, "int32"), const(0, "int32"))
        self.sums = self._filled(a.value_size // 2, 0.0)
        self.largest, self.totals = self._filled(2, LOWEST), self._filled(2, 0.0)
        fragments = k.local(a.size // DEPTH * 4, "uint32")
        with k.loop(self.steps, "serial", "step") as step:
            later = k.bind(step + 1)
            self._copy_step(later, k.bind(tirx.op.truncmod(later, STAGES)))
            k.invoke(await_copies(1))
            k.wait()
            start = k.bind(tirx.op.truncmod(step, STAGES) * self.stage_size)
            self._load_queries(fragments)
            scores = self._scores(fragments, start)
            self._weigh(scores, k.bind(step * BLOCK), keys)
            self._add_values(scores, start)
            k.wait()
        self._finish(queries)

    def _filled(self, size: int, value: float) -> Local:
        local = self.k.local(size, "float32")
        for i in range(size):
            self.k.assign(local, i, const(value, "float32"))
        return local

    def _copy_step(self, step: Expr, stage: Expr) -> None:
        k, a = self.k, self.attention
        start = k.bind(stage * self.stage_size)
        with k.when(step < self.steps):
            first = k.bind(step * BLOCK)
            self._copy(a.key, first, a.shape[3], start, BLOCK, a.size)
            self._copy(a.value, first, a.shape[3], start + self.values_at, BLOCK, a.value_size)
        k.invoke(COMMIT)

    def _copy(self, source: Storage, first: Expr, extent: int, to: Expr, rows: int, width: int) -> None:
        """Rows of an operand, zeros beyond its end, with gaps that keep neighbours in different banks."""
        k, chunks = self.k, width // CHUNK
        count = -(-rows * chunks // self.threads)
        with k.loop(count, "unroll", "copy") as number:
            at = k.bind(number * self.threads + self.thread)
            row, chunk = k.bind(tirx.op.truncdiv(at, chunks)), k.bind(tirx.op.truncmod(at, chunks))
            place = k.bind(first + row)
            exists = k.bind(tirx.Cast("int32", place < extent))
            position = source.layout.position([self.n, self.head, place * exists, chunk * CHUNK])
            target = tirx.op.address_of(self.memory[to + row * (width + CHUNK) + chunk * CHUNK])
            with k.when(True if rows * chunks % self.threads == 0 else at < rows * chunks):
                k.invoke(COPY, target, k.address(source.buffer, position), exists)

    def _load_queries(self, fragments: Local) -> None:
        for depth in range(self.attention.size // DEPTH):
            at = self.queries_at + (self.own + self.low) * self.key_row + self.high + depth * DEPTH
            self.k.invoke(LOAD, _pointer(fragments, depth * 4), _pointer(self.memory, at))

    def _scores(self, fragments: Local, start: Expr) -> Local:
        """Sums of 16 queries and the keys of a block."""
        k, scores = self.k, self._filled(BLOCK // COLUMNS * 4, 0.0)
        for depth in range(self.attention.size // DEPTH):
            for pair in range(BLOCK // (2 * COLUMNS)):
                right = k.local(4, "uint32")
                row = pair * (2 * COLUMNS) + tirx.op.truncmod(self.low, 8) + self.high
                inner = tirx.op.truncdiv(self.low, 8) * 8 + depth * DEPTH
                k.invoke(LOAD, _pointer(right, 0), _pointer(self.memory, start + row * self.key_row + inner))
                for x in range(2):
                    at = _pointer(scores, (pair * 2 + x) * 4)
                    k.invoke(self.multiply, at, _pointer(fragments, depth * 4), _pointer(right, x * 2))
        return scores

    def _weigh(self, scores: Local, first: Expr, keys: int) -> None:
        """Scores become powers of two, of their difference from the largest one; what was added up so far is scaled to match."""
        k, a = self.k, self.attention
        for i in range(BLOCK // COLUMNS * 4):
            key = k.bind(first + self.column + (i // 4 * COLUMNS + i % 2))
            value = scores[i] * const(a.scale * LOG2_E, "float32")
            row = k.bind(tirx.op.min(self.row + i % 4 // 2 * 8, const(a.shape[2] - 1, "int32")))
            if a.mask is not None:
                place = k.bind(tirx.op.min(key, const(keys - 1, "int32")))
                value = value + a.mask(k, [self.n, self.head, row, place]) * const(LOG2_E, "float32")
            if keys % BLOCK:
                value = tirx.Select(key < keys, value, const(-np.inf, "float32"))
            k.assign(scores, i, value)
        for half in range(2):
            self._weigh_row(scores, half)

    def _weigh_row(self, scores: Local, half: int) -> None:
        k = self.k
        places = [i for i in range(BLOCK // COLUMNS * 4) if i % 4 // 2 == half]
        best = k.local(1, "float32")
        k.assign(best, 0, self.largest[half])
        for i in places:
            k.assign(best, 0, tirx.op.max(best[0], scores[i]))
        for distance in (1, 2):
            k.assign(best, 0, tirx.op.max(best[0], k.exchange(best[0], distance)))
        shrink = k.bind(k.call(POWER, "float32", self.largest[half] - best[0]))
        k.assign(self.largest, half, best[0])
        k.assign(self.totals, half, self.totals[half] * shrink)
        for i in places:
            k.assign(scores, i, k.call(POWER, "float32", scores[i] - best[0]))
            k.assign(self.totals, half, self.totals[half] + scores[i])
        for i in range(self.attention.value_size // 2):
            if i % 4 // 2 == half:
                k.assign(self.sums, i, self.sums[i] * shrink)

    def _add_values(self, weights: Local, start: Expr) -> None:
        k = self.k
        for depth in range(BLOCK // DEPTH):
            left = k.local(4, "uint32")
            for i in range(4):
                at = depth * 8 + i // 2 * 4 + i % 2 * 2
                k.invoke(pack(self.attention.element), _pointer(left, i), weights[at], weights[at + 1])
            for pair in range(self.attention.value_size // (2 * COLUMNS)):
                right = k.local(4, "uint32")
                place = (depth * DEPTH + self.low) * self.value_row + pair * (2 * COLUMNS) + self.high
                source = _pointer(self.memory, start + self.values_at + place)
                k.invoke(LOAD_TRANSPOSED, _pointer(right, 0), source)
                for x in range(2):
                    at = _pointer(self.sums, (pair * 2 + x) * 4)
                    k.invoke(self.multiply, at, _pointer(left, 0), _pointer(right, x * 2))

    def _finish(self, queries: int) -> None:
        """Divide by the sums of exponentials; a query that attends to nothing gives zeros."""
        k = self.k
        for half in range(2):
            total = k.local(1, "float32")
            k.assign(total, 0, self.totals[half])
            for distance in (1, 2):
                k.assign(total, 0, total[0] + k.exchange(total[0], distance))
            share = tirx.Select(
                total[0] > const(0.0, "float32"), const(1.0, "float32") / total[0], const(0.0, "float32")
            )
            share, row = k.bind(share), k.bind(self.row + half * 8)
            with k.when(row < queries):
                for i in range(self.attention.value_size // 2):
                    if i % 4 // 2 == half:
                        element = k.bind(self.column + (i // 4 * COLUMNS + i % 2))
                        self.attention.store(k, [self.n, self.head, row, element], self.sums[i] * share)


def _pointer(memory: Local, index: Expr) -> Expr:
    return tirx.op.address_of(memory[index])

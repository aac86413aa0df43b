"""Attention of float32 on the multiply-add units of a GPU, in one kernel that never writes the scores (FlashAttention-2, arXiv:2307.08691).

A team has some queries of a head, and all keys, a step at a time. Rows of queries, keys and values lie in shared memory as they are; 16
neighbouring threads share the keys and elements of a row, eight such groups the queries. Weights go through shared memory, as every
thread needs all of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, Local, const
from graphopt.backends.cuda.accesses import READ
from graphopt.backends.cuda.attention_kernel import AttentionKernel
from graphopt.backends.cuda.attention_scores import added, folded, inverse, larger
from graphopt.backends.cuda.attention_tiles import MULTIPROCESSORS
from graphopt.backends.cuda.attention_units import pointer, zeros
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.instructions import COMMIT, COPY, await_copies
from graphopt.backends.cuda.tensor_tiles import AMPERE, FLOAT
from graphopt.backends.tensor import Storage

ACROSS, DOWN = 16, 8
"""Threads that share the keys of a query, and the queries of a team."""

THREADS = ACROSS * DOWN

NEIGHBOURS = (1, 2, 4, 8)
"""Distances of threads that share a query."""

MOST_KEYS = 4
"""Of a query, a thread and a step."""

FEWEST_ROWS, MOST_ROWS = 2, 8
"""Queries of a thread."""

CHUNK = 4
"""Elements that are copied and read at a time."""

DEPTHS = 8
"""Depths of a product that are written out in the code."""

PADDING = 4
"""Elements between rows of operands, so that chunks of neighbouring rows lie in different banks."""

APART = 16
"""Between rows of weights."""


def choose_rows(shape: Sequence[int], size: int, value_size: int) -> int:
    """Queries of a thread for `shape` of batch, heads, queries and keys: those with the fewest rounds of work."""
    batch, heads, queries, _ = shape
    fitting = [
        rows
        for rows in range(FEWEST_ROWS, MOST_ROWS + 1)
        if FLOAT * sum(areas(rows, size, value_size)) <= AMPERE.shared
    ]
    teams = {rows: batch * heads * -(-queries // (DOWN * rows)) for rows in fitting}
    return min(teams, key=lambda rows: -(-teams[rows] // MULTIPROCESSORS) * (rows + 2))


def areas(rows: int, size: int, value_size: int, step: int = ACROSS * MOST_KEYS) -> tuple[int, int, int, int]:
    """Elements in shared memory: of queries, keys, values and weights."""
    width, value_width = size + PADDING, value_size + PADDING
    return DOWN * rows * width, step * width, step * value_width, DOWN * rows * (step + APART)


@dataclass(frozen=True)
class FloatAttention(AttentionKernel):
    """Attention of float32, with `rows` queries of a thread."""

    rows: int

    @property
    def team_queries(self) -> int:
        return DOWN * self.rows

    def attend(self, k: DeviceBuilder, n: Expr, head: Expr, first: Expr) -> None:
        _Team(self, k, n, head, first).attend()


class _Team:
    """The work of one team. A thread has every eighth query, and every sixteenth key."""

    def __init__(self, attention: FloatAttention, k: DeviceBuilder, n: Expr, head: Expr, first: Expr) -> None:
        self.attention, self.k, self.n, self.head, self.first = attention, k, n, head, first
        a, keys = attention, attention.shape[3]
        self.shared_head = k.bind(tirx.op.truncdiv(head, a.group))
        self.thread = k.team(THREADS)
        self.x, self.y = (
            k.bind(tirx.op.truncmod(self.thread, ACROSS)),
            k.bind(tirx.op.truncdiv(self.thread, ACROSS)),
        )
        self.rows, self.step = a.rows, ACROSS * min(MOST_KEYS, -(-keys // ACROSS))
        self.columns = a.value_size // ACROSS
        self.together = next(run for run in (4, 2, 1) if self.columns % run == 0)
        """Neighbouring elements of a value."""
        self.width, self.value_width = a.size + PADDING, a.value_size + PADDING
        self.weight_width = self.step + APART
        self.keys_at, self.values_at, self.weights_at, end = accumulate(
            areas(a.rows, a.size, a.value_size, self.step)
        )
        self.memory = k.overlay(end, "float32")

    def attend(self) -> None:
        k, a = self.k, self.attention
        keys, rows = a.shape[3], DOWN * self.rows
        self._copy(a.query, self.head, self.first, a.shape[2], 0, rows, a.size)
        self._copy(a.key, self.shared_head, const(0, "int32"), keys, self.keys_at, self.step, a.size)
        k.invoke(COMMIT)
        self.sums, self.totals = zeros(k, self.rows * self.columns), zeros(k, self.rows)
        self.largest = k.local(self.rows, "float32")
        for y in range(self.rows):
            k.assign(self.largest, y, a.scores.lowest)
        whole = keys // self.step
        with k.loop(whole, "serial", "step") as step:
            self._step(k.bind(step * self.step), self.step, self.step)
        rest = keys - whole * self.step
        if rest:
            self._step(const(whole * self.step, "int32"), -(-rest // ACROSS) * ACROSS, rest)
        self._finish()

    def _step(self, first: Expr, count: int, rest: int) -> None:
        """`count` keys from `first`, of which `rest` exist."""
        k, a = self.k, self.attention
        keys = a.shape[3]
        self._await()
        self._copy(a.value, self.shared_head, first, keys, self.values_at, count, a.value_size)
        k.invoke(COMMIT)
        scores = self._scores(count)
        self._weigh(scores, first, count, rest)
        for y in range(self.rows):
            for x in range(count // ACROSS):
                at = self.weights_at + (self.y + y * DOWN) * self.weight_width + self.x + x * ACROSS
                k.assign(self.memory, at, scores[y * (count // ACROSS) + x])
        self._await()
        later = k.bind(first + self.step)
        with k.when(later < keys):
            self._copy(a.key, self.shared_head, later, keys, self.keys_at, self.step, a.size)
        k.invoke(COMMIT)
        self._add_values(count)

    def _await(self) -> None:
        self.k.invoke(await_copies(0))
        self.k.wait()

    def _copy(
        self, source: Storage, head: Expr, first: Expr, extent: int, to: int, rows: int, width: int
    ) -> None:
        """Rows of an operand, zeros beyond its end."""
        k, chunks = self.k, width // CHUNK
        with k.loop(-(-rows * chunks // THREADS), "unroll", "copy") as number:
            at = k.bind(number * THREADS + self.thread)
            row, chunk = k.bind(tirx.op.truncdiv(at, chunks)), k.bind(tirx.op.truncmod(at, chunks))
            place = k.bind(first + row)
            exists = k.bind(tirx.Cast("int32", place < extent))
            position = source.layout.position([self.n, head, place * exists, chunk * CHUNK])
            target = pointer(self.memory, to + row * (width + PADDING) + chunk * CHUNK)
            with k.when(True if rows * chunks % THREADS == 0 else at < rows * chunks):
                k.invoke(COPY, target, k.address(source.buffer, position), exists)

    def _scores(self, count: int) -> Local:
        """Products of the queries of a thread and its keys."""
        k, across = self.k, count // ACROSS
        scores = zeros(k, self.rows * across)
        query, key = k.bind(self.y * self.width), k.bind(self.keys_at + self.x * self.width)
        for depth in self._depths(self.attention.size):
            left = self._read(self.rows, query + depth, DOWN * self.width)
            right = self._read(across, key + depth, ACROSS * self.width)
            for inner in range(CHUNK):
                for y in range(self.rows):
                    for x in range(across):
                        at = y * across + x
                        product = left[y * CHUNK + inner] * right[x * CHUNK + inner]
                        k.assign(scores, at, scores[at] + product)
        return scores

    def _depths(self, extent: int) -> Iterator[Expr]:
        """The first of every few depths; what is done with them is written out a few times, in a loop."""
        some = DEPTHS if extent % DEPTHS == 0 else CHUNK
        with self.k.loop(extent // some, "serial", "depth") as number:
            first = self.k.bind(number * some)
            for inner in range(0, some, CHUNK):
                yield first + inner

    def _read(self, count: int, first: Expr, distance: int, run: int = CHUNK) -> Local:
        """So many runs of neighbours from shared memory, some distance apart."""
        k, registers = self.k, self.k.local(count * run, "float32")
        for i in range(count):
            source = self.memory[first + i * distance]
            if run == 1:
                k.assign(registers, i, source)
            else:
                k.invoke(READ[4 * run], pointer(registers, i * run), tirx.op.address_of(source))
        return registers

    def _add_values(self, count: int) -> None:
        k, run = self.k, self.together
        weight = k.bind(self.weights_at + self.y * self.weight_width)
        value = k.bind(self.values_at + self.x * run)
        for depth in self._depths(count):
            left = self._read(self.rows, weight + depth, DOWN * self.weight_width)
            for inner in range(CHUNK):
                row = k.bind(value + (depth + inner) * self.value_width)
                right = self._read(self.columns // run, row, ACROSS * run, run)
                for y in range(self.rows):
                    for x in range(self.columns):
                        at = y * self.columns + x
                        k.assign(self.sums, at, self.sums[at] + left[y * CHUNK + inner] * right[x])

    def _weigh(self, scores: Local, first: Expr, count: int, rest: int) -> None:
        """Scores become powers of two, of their difference from the largest one; what was added up so far is scaled to match."""
        k, a, across = self.k, self.attention, count // ACROSS
        for y in range(self.rows):
            for x in range(across):
                key = k.bind(first + self.x + x * ACROSS)
                index = [self.n, self.head, self.first + self.y + y * DOWN, key]
                is_behind = bool(a.shape[2] % (DOWN * self.rows)), (x + 1) * ACROSS > rest
                value = a.scores.score(k, scores[y * across + x], index, is_behind)
                k.assign(scores, y * across + x, value)
            self._weigh_row(scores, y, across)

    def _weigh_row(self, scores: Local, y: int, across: int) -> None:
        k, how = self.k, self.attention.scores
        places = range(y * across, (y + 1) * across)
        best = larger(k, folded(k, [scores[i] for i in places], larger), self.largest[y])
        for distance in NEIGHBOURS:
            best = larger(k, best, k.exchange(best, distance))
        shrink = k.bind(how.power(k, self.largest[y] - best))
        k.assign(self.largest, y, best)
        for i, power in zip(places, how.powers(k, [scores[i] for i in places], best), strict=True):
            k.assign(scores, i, power)
        total = folded(k, [scores[i] for i in places], added)
        k.assign(self.totals, y, self.totals[y] * shrink + total)
        for x in range(self.columns):
            at = y * self.columns + x
            k.assign(self.sums, at, self.sums[at] * shrink)

    def _finish(self) -> None:
        """Divide by the sums of exponentials; a query that attends to nothing gives zeros."""
        k, a = self.k, self.attention
        for y in range(self.rows):
            total = self.totals[y]
            for distance in NEIGHBOURS:
                total = added(k, total, k.exchange(total, distance))
            share = inverse(k, total)
            query = k.bind(self.first + self.y + y * DOWN)
            with k.when(query < a.shape[2]):
                for x in range(0, self.columns, self.together):
                    self._store(
                        query,
                        k.bind((self.x + x // self.together * ACROSS) * self.together),
                        y * self.columns + x,
                        share,
                    )

    def _store(self, query: Expr, element: Expr, at: int, share: Expr) -> None:
        def store(lane: Expr) -> None:
            self.attention.store(k, [self.n, self.head, query, element + lane], self.sums[at + lane] * share)

        k = self.k
        with k.lanes(self.together if k.rehearse(self.together, store) is not None else 1) as lane:
            store(lane)

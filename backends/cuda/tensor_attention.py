"""Attention of halves on tensor cores, in one kernel that never writes the scores.

A warp has 16 queries, and some or all keys. Keys and values come to shared memory step by step; of the scores of a step it keeps the
largest and the sum of exponentials so far, and scales what it has added up whenever a larger one comes (FlashAttention-2,
arXiv:2307.08691). Warps that share the keys of a query add up what they have in shared memory, from where results are stored in rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, Local, const
from graphopt.backends.cuda.attention_kernel import AttentionKernel
from graphopt.backends.cuda.attention_scores import added, folded, inverse, larger
from graphopt.backends.cuda.attention_tiles import COLUMNS, ROW, ROWS, AttentionTile, blocks_of
from graphopt.backends.cuda.attention_units import AttentionUnits, Groups, Operands, Warps, zeros
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.instructions import COMMIT, COPY, FENCE, await_copies
from graphopt.backends.cuda.tensor_elements import CHUNKS, Element
from graphopt.backends.cuda.tensor_tiles import PADDING
from graphopt.backends.tensor import Storage

CHUNK = 8

LARGEST = 128
"""Elements of a query or a value that a warp has registers for."""

LONGEST = 8
"""Results of a run."""


@dataclass(frozen=True)
class TensorAttention(AttentionKernel):
    """Attention of halves, whose elements have two bytes."""

    element: Element
    tile: AttentionTile

    @property
    def team_queries(self) -> int:
        return self.tile.rows

    def attend(self, k: DeviceBuilder, n: Expr, head: Expr, first: Expr) -> None:
        _Team(self, k, n, head, first).run()


class _Team:
    """The work of one team: some queries of a head."""

    def __init__(
        self, attention: TensorAttention, k: DeviceBuilder, n: Expr, head: Expr, first: Expr
    ) -> None:
        self.attention, self.k, self.n, self.head, self.first = attention, k, n, head, first
        a, tile = attention, attention.tile
        self.shared_head = k.bind(tirx.op.truncdiv(head, a.group))
        self.thread = k.team(tile.threads)
        lane, warp = (
            k.bind(tirx.op.truncmod(self.thread, WARP)),
            k.bind(tirx.op.truncdiv(self.thread, WARP)),
        )
        self.part = k.bind(tirx.op.truncdiv(warp, tile.warps)) if tile.parts > 1 else const(0, "int32")
        own = k.bind(tirx.op.truncmod(warp, tile.warps) * ROWS)
        self.row, self.column = (
            k.bind(own + tirx.op.truncdiv(lane, 4)),
            k.bind(tirx.op.truncmod(lane, 4) * 2),
        )
        self.values_at = blocks_of(a.size) * tile.keys * ROW
        self.stage_size = self.values_at + blocks_of(a.value_size) * tile.keys * ROW
        self.queries_at = tile.stages * self.stage_size
        self.memory = k.overlay(self.queries_at + blocks_of(a.size) * tile.rows * ROW, a.element.dtype)
        operands = Operands(self.memory, a.element, a.size, a.value_size, tile.rows, tile.keys)
        self.units: AttentionUnits = (
            Groups(k, operands, own) if tile.by_groups else Warps(k, operands, self.thread, own)
        )
        self.steps, self.whole = -(-a.shape[3] // tile.keys), a.shape[3] // tile.keys
        self.is_resident = self.steps <= tile.stages
        """Whether all keys and values fit, so that nothing is copied later on."""
        self.pending = 2 * tile.stages - (1 if self.is_resident else 2)

    def run(self) -> None:
        k, a, tile = self.k, self.attention, self.attention.tile
        self.sums = zeros(k, a.value_size // 2)
        self.totals = zeros(k, 2)
        self.largest = k.local(2, "float32")
        for half in range(2):
            k.assign(self.largest, half, a.scores.lowest)
        self._copy(a.query, self.head, self.first, a.shape[2], self.queries_at, tile.rows, a.size)
        for step in range(tile.stages):
            self._copy_keys(const(step, "int32"))
            k.invoke(COMMIT)
            if self.is_resident or step < tile.stages - 1:
                self._copy_values(const(step, "int32"))
                k.invoke(COMMIT)
        with k.loop(self.whole, "serial", "step") as step:
            self._step(step, tile.step, tile.keys)
        if self.whole < self.steps:
            rest = a.shape[3] - self.whole * tile.keys
            share = -(-rest // (tile.parts * ROWS)) * ROWS
            self._step(const(self.whole, "int32"), share, rest)
        self._finish()

    def _start(self, step: Expr) -> Expr:
        return self.k.bind(tirx.op.truncmod(step, self.attention.tile.stages) * self.stage_size)

    def _step(self, step: Expr, share: int, rest: int) -> None:
        """`share` keys of each part; `rest` tells how many there are of all."""
        k, tile = self.k, self.attention.tile
        self._await()
        if not self.is_resident:
            self._copy_values(k.bind(step + (tile.stages - 1)))
        k.invoke(COMMIT)
        start = k.bind(self._start(step) + self.part * (share * ROW))
        scores = self.units.scores(const(self.queries_at, "int32"), start, share)
        self._weigh(scores, k.bind(step * tile.keys + self.part * share), share, rest)
        self._await()
        if not self.is_resident:
            self._copy_keys(k.bind(step + tile.stages))
        k.invoke(COMMIT)
        self.units.add_values(self.sums, scores, k.bind(start + self.values_at), share)

    def _await(self) -> None:
        """Until the oldest copies are there, and all warps have come here."""
        k = self.k
        k.invoke(await_copies(self.pending))
        if self.attention.tile.by_groups:
            k.invoke(FENCE)
        k.wait()

    def _copy_keys(self, step: Expr) -> None:
        self._copy_step(self.attention.key, step, 0, self.attention.size)

    def _copy_values(self, step: Expr) -> None:
        self._copy_step(self.attention.value, step, self.values_at, self.attention.value_size)

    def _copy_step(self, source: Storage, step: Expr, to: int, width: int) -> None:
        k, tile, keys = self.k, self.attention.tile, self.attention.shape[3]
        start = k.bind(self._start(step) + to)
        with k.when(step < self.steps):
            self._copy(source, self.shared_head, k.bind(step * tile.keys), keys, start, tile.keys, width)

    def _copy(
        self, source: Storage, head: Expr, first: Expr, extent: int, to: Expr, rows: int, width: int
    ) -> None:
        """Rows of an operand, zeros beyond its end; chunks of neighbouring rows lie in different banks."""
        k, chunks, threads = self.k, width // CHUNK, self.attention.tile.threads
        with k.loop(-(-rows * chunks // threads), "unroll", "copy") as number:
            at = k.bind(number * threads + self.thread)
            row, chunk = k.bind(tirx.op.truncdiv(at, chunks)), k.bind(tirx.op.truncmod(at, chunks))
            place = k.bind(first + row)
            exists = k.bind(tirx.Cast("int32", place < extent))
            position = source.layout.position([self.n, head, place * exists, chunk * CHUNK])
            block, inner = tirx.op.truncdiv(chunk, CHUNKS), tirx.op.truncmod(chunk, CHUNKS)
            mixed = tirx.op.bitwise_xor(inner, tirx.op.bitwise_and(row, const(CHUNKS - 1, "int32")))
            target = self.memory[to + (block * rows + row) * ROW + mixed * CHUNK]
            with k.when(True if rows * chunks % threads == 0 else at < rows * chunks):
                k.invoke(COPY, tirx.op.address_of(target), k.address(source.buffer, position), exists)

    def _weigh(self, scores: Local, first: Expr, share: int, rest: int) -> None:
        """Scores become powers of two, of their difference from the largest one; what was added up so far is scaled to match."""
        k, a = self.k, self.attention
        last = (a.tile.parts - 1) * share
        for i in range(0, share // 2, 2):
            inner = i // 4 * COLUMNS
            query = k.bind(self.first + self.row + i % 4 // 2 * 8)
            is_behind = bool(a.shape[2] % a.tile.rows), last + inner + COLUMNS > rest
            place = k.bind(first + self.column + inner)
            if a.scores.are_products and not is_behind[1]:
                continue
            with k.lanes(2) as lane:
                index = [self.n, self.head, query, place + lane]
                k.assign(scores, i + lane, a.scores.score(k, scores[i + lane], index, is_behind))
        for half in range(2):
            self._weigh_row(scores, [i for i in range(share // 2) if i % 4 // 2 == half], half)

    def _weigh_row(self, scores: Local, places: list[int], half: int) -> None:
        k, how = self.k, self.attention.scores
        best = larger(k, folded(k, [scores[i] for i in places], larger), self.largest[half])
        for distance in (1, 2):
            best = larger(k, best, k.exchange(best, distance))
        if self.steps > 1:
            self._shrink(k.bind(how.power(k, self.largest[half] - best)), half)
        k.assign(self.largest, half, best)
        for i, power in zip(places, how.powers(k, [scores[i] for i in places], best), strict=True):
            k.assign(scores, i, power)
        k.assign(self.totals, half, self.totals[half] + folded(k, [scores[i] for i in places], added))

    def _shrink(self, factor: Expr, half: int) -> None:
        """Of what was added up so far."""
        k = self.k
        k.assign(self.totals, half, self.totals[half] * factor)
        for i in range(self.attention.value_size // 2):
            if i % 4 // 2 == half:
                k.assign(self.sums, i, self.sums[i] * factor)

    def _finish(self) -> None:
        """Results go through shared memory, so that neighbouring threads store neighbouring elements."""
        k, a, tile = self.k, self.attention, self.attention.tile
        width, rows = a.value_size + PADDING, tile.parts * tile.rows
        results = k.overlay(rows * width + (2 * rows if tile.parts > 1 else 0), "float32")
        k.wait()
        shares = self._shares(results, rows * width)
        row = k.bind(self.part * tile.rows + self.row)
        for i in range(a.value_size // 2):
            half = i % 4 // 2
            at = (row + half * 8) * width + self.column + (i // 4 * COLUMNS + i % 2)
            k.assign(results, at, self.sums[i] * shares[half])
        k.wait()
        self._store(results, width)

    def _shares(self, memory: Local, start: int) -> list[Expr]:
        """By which a thread multiplies what it has added up for both of its rows; what parts know of them lies from `start`."""
        k, tile = self.k, self.attention.tile
        totals = [k.bind(self._all_keys(self.totals[half])) for half in range(2)]
        if tile.parts == 1:
            return [inverse(k, total) for total in totals]
        places = [k.bind(start + (self.row + half * 8) * 2) for half in range(2)]
        for half, place in enumerate(places):
            k.assign(memory, place + self.part * (2 * tile.rows), self.largest[half])
            k.assign(memory, place + self.part * (2 * tile.rows) + 1, totals[half])
        k.wait()
        return [self._share(memory, place, self.largest[half]) for half, place in enumerate(places)]

    def _share(self, memory: Local, place: Expr, own: Expr) -> Expr:
        k, how, distance = self.k, self.attention.scores, 2 * self.attention.tile.rows
        parts = range(self.attention.tile.parts)
        largest = [memory[place + part * distance] for part in parts]
        best = folded(k, largest, larger)
        totals = [memory[place + part * distance + 1] * how.power(k, largest[part] - best) for part in parts]
        return k.bind(inverse(k, folded(k, totals, added)) * how.power(k, own - best))

    def _all_keys(self, total: Expr) -> Expr:
        for distance in (1, 2):
            total = self.k.bind(total + self.k.exchange(total, distance))
        return total

    def _store(self, results: Local, width: int) -> None:
        k, a, tile = self.k, self.attention, self.attention.tile
        count = tile.rows * a.value_size
        least = tile.threads * max(count // tile.threads // LONGEST, 1)
        run = k.widest(count, lambda position: self._store_one(results, width, position), least, False)
        with k.loop(-(-count // (tile.threads * run)), "unroll", "result") as number:
            at = k.bind(number * tile.threads + self.thread)
            with (
                k.when(True if count % (tile.threads * run) == 0 else at < count // run),
                k.lanes(run) as lane,
            ):
                self._store_one(results, width, at * run + lane if run > 1 else at)

    def _store_one(self, results: Local, width: int, position: Expr) -> None:
        k, a, tile = self.k, self.attention, self.attention.tile
        row = k.bind(tirx.op.truncdiv(position, a.value_size))
        element = k.bind(tirx.op.truncmod(position, a.value_size))
        query = k.bind(self.first + row)
        with k.when(True if a.shape[2] % tile.rows == 0 else query < a.shape[2]):
            value = results[row * width + element]
            for part in range(1, tile.parts):
                value = value + results[(row + part * tile.rows) * width + element]
            a.store(k, [self.n, self.head, query, element], value)

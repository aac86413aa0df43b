"""How a team multiplies queries by keys, and weights by values: warp by warp with `mma.sync`, or by groups of four with `wgmma`.

Either way a thread holds the same fragments of scores and results: in 16 rows of a warp, two neighbours each of two rows, eight apart.
Rows of 128 bytes lie in shared memory, one block of 64 elements after the other, with chunk c of row r at place c ^ (r % 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, Local, const
from graphopt.backends.codegen.inline import Inline
from graphopt.backends.cuda.attention_tiles import COLUMNS, DEPTH, ROW
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.instructions import (
    LOAD,
    LOAD_TRANSPOSED,
    multiply,
    multiply_rows,
    multiply_weights,
    pack,
)
from graphopt.backends.cuda.tensor_elements import CHUNKS, Element

PAIR = 2 * COLUMNS
"""Columns whose fragments a warp loads together."""


@dataclass(frozen=True)
class Operands:
    """Halves in shared memory: `size` of a query and a key, `value_size` of a value, in blocks of so many rows."""

    memory: Local
    element: Element
    size: int
    value_size: int
    query_rows: int
    key_rows: int


class AttentionUnits(Protocol):
    """What a thread does. `queries`, `keys` and `values` are where the rows of its team begin in shared memory."""

    def scores(self, queries: Expr, keys: Expr, step: int) -> Local:
        """Products with `step` keys."""

    def add_values(self, sums: Local, weights: Local, values: Expr, step: int) -> None:
        """Add the products of weights and as many values."""


class Warps:
    """Fragments come from shared memory by `ldmatrix`; addresses of a lane are the same for all keys but for a constant."""

    def __init__(self, k: DeviceBuilder, operands: Operands, thread: Expr, first_row: Expr) -> None:
        self.k, self.operands = k, operands
        lane = k.bind(tirx.op.truncmod(thread, WARP))
        low, high = k.bind(tirx.op.truncmod(lane, 16)), k.bind(tirx.op.truncdiv(lane, 16))
        seventh = k.bind(tirx.op.truncmod(lane, CHUNKS))
        second = k.bind(tirx.op.truncdiv(low, CHUNKS))
        self.query_at = self._places(k.bind((first_row + low) * ROW), high, seventh, operands.size)
        self.key_at = self._places(k.bind((seventh + high * 8) * ROW), second, seventh, operands.size)
        self.value_at = self._places(k.bind(low * ROW), high, seventh, operands.value_size)

    def _places(self, row: Expr, odd: Expr, seventh: Expr, size: int) -> list[Expr]:
        """Where a lane finds its chunk of every two, in a row of the first block."""
        chunks = [tirx.op.bitwise_xor(odd + chunk, seventh) for chunk in range(0, min(size // 8, CHUNKS), 2)]
        return [self.k.bind(row + chunk * 8) for chunk in chunks]

    def _load(self, form: Inline, places: list[Expr], start: Expr, number: int, rows: int) -> Local:
        """Fragments of the two chunks of a number."""
        block, place = divmod(number, CHUNKS // 2)
        fragments = self.k.local(4, "uint32")
        at = start + places[place] + block * rows * ROW
        self.k.invoke(form, pointer(fragments, 0), pointer(self.operands.memory, at))
        return fragments

    def scores(self, queries: Expr, keys: Expr, step: int) -> Local:
        k, o = self.k, self.operands
        scores = zeros(k, step // 2)
        for depth in range(o.size // DEPTH):
            left = self._load(LOAD, self.query_at, queries, depth, o.query_rows)
            for pair in range(step // PAIR):
                right = self._load(LOAD, self.key_at, keys + pair * PAIR * ROW, depth, o.key_rows)
                self._multiply(scores, left, right, pair)
        return scores

    def add_values(self, sums: Local, weights: Local, values: Expr, step: int) -> None:
        k, o = self.k, self.operands
        for depth in range(step // DEPTH):
            left = packed(k, o.element, weights, depth * 8, 1)
            for pair in range(o.value_size // PAIR):
                start = values + depth * DEPTH * ROW
                self._multiply(
                    sums, left, self._load(LOAD_TRANSPOSED, self.value_at, start, pair, o.key_rows), pair
                )

    def _multiply(self, sums: Local, left: Local, right: Local, pair: int) -> None:
        for x in range(2):
            to = pointer(sums, (pair * 2 + x) * 4)
            self.k.invoke(multiply(self.operands.element), to, pointer(left, 0), pointer(right, x * 2))


class Groups:
    """Queries, keys and values are multiplied where they lie, weights from registers."""

    def __init__(self, k: DeviceBuilder, operands: Operands, first_row: Expr) -> None:
        self.k, self.operands = k, operands
        self.query_at = k.bind(tirx.op.truncdiv(first_row, ROW) * (ROW * ROW))

    def scores(self, queries: Expr, keys: Expr, step: int) -> Local:
        k, o = self.k, self.operands
        scores = k.local(step // 2, "float32")
        left, right = pointer(o.memory, queries + self.query_at), pointer(o.memory, keys)
        blocks = [o.size // DEPTH, o.query_rows, o.key_rows]
        k.invoke(multiply_rows(step, o.element), pointer(scores, 0), left, right, *blocks)
        return scores

    def add_values(self, sums: Local, weights: Local, values: Expr, step: int) -> None:
        k, o = self.k, self.operands
        left = packed(k, o.element, weights, 0, step // DEPTH)
        operands = pointer(left, 0), pointer(o.memory, values)
        k.invoke(
            multiply_weights(o.value_size, o.element),
            pointer(sums, 0),
            *operands,
            step // DEPTH,
            o.key_rows,
        )


def packed(k: DeviceBuilder, element: Element, weights: Local, first: int, count: int) -> Local:
    """Sums of products from `first`, those of 16 columns at a time, as fragments of a left operand."""
    fragments = k.local(4 * count, "uint32")
    for i in range(4 * count):
        at = first + i // 2 * 4 + i % 2 * 2
        k.invoke(pack(element), pointer(fragments, i), weights[at], weights[at + 1])
    return fragments


def zeros(k: DeviceBuilder, size: int) -> Local:
    """Sums of nothing."""
    local = k.local(size, "float32")
    for i in range(size):
        k.assign(local, i, const(0.0, "float32"))
    return local


def pointer(memory: Local, index: Expr) -> Expr:
    """Where an element lies."""
    return tirx.op.address_of(memory[index])

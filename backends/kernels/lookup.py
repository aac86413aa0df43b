"""The right operand of a multiplication as codes of four or eight bits, whose values are looked up in registers.

Where products have few rows, weights are read once, from memory: an eighth or a quarter of it is read then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.core import Core, Lookup
from graphopt.backends.kernels.gemm import GemmTile
from graphopt.backends.kernels.panels import Panels, pack_panels
from graphopt.backends.kernels.tile_cost import axis_cycles, weights_cycles

Array = np.ndarray[Any, Any]

WORD = 32
"""Bits that the codes of several vectors share: those of the first lane of each, of the second, and so on."""

NARROW, WIDE = 4, 8
"""Bits of a code."""

VECTORS = 8
"""Of a panel: those whose codes of four bits fill a word."""

FEW_ROWS = 2
"""Rows of a product up to which it is bound by bringing the weights. With four, floats are as fast where they lie in a cache."""

LOOK_UP = 1.4
"""Cycles to decode a vector, fitted to measurements on Zen 5."""


def code_bits(values: int, lanes: int) -> int | None:
    """Of the codes of so many values; None where they are more than two registers hold."""
    return NARROW if values <= min(lanes, 1 << NARROW) else WIDE if values <= 2 * lanes else None


@dataclass(frozen=True, kw_only=True)
class LookupPanels(Panels):
    """Panels of words of codes of `bits` bits, `[panel, depth, words * lanes, 4]` uint8. `book` holds the float32 values, filled up
    to one or two vectors."""

    book: Buffer
    bits: int
    lookup: Lookup

    def load(self, k: KernelBuilder, batch: Sequence[Expr], panel: Expr, depth: Expr, vector: int) -> Expr:
        """One vector of columns of a row, float32."""
        codes = self._codes(k, panel, depth, vector)
        kind = f"float32x{self.lanes}"
        low = k.load_vector(self.book, 0, self.lanes)
        if self.book.size == self.lanes:
            return tirx.op.call_llvm_pure_intrin(kind, self.lookup.one, low, codes)
        high = k.load_vector(self.book, self.lanes, self.lanes)
        return tirx.op.call_llvm_pure_intrin(kind, self.lookup.two, low, codes, high)

    def _codes(self, k: KernelBuilder, panel: Expr, depth: Expr, vector: int) -> Expr:
        """Indices with other codes above them."""
        shared = WORD // self.bits
        words = -(-self.vectors // shared)
        size = self.lanes * WORD // 8
        start = ((panel * self.depth + depth) * words + vector // shared) * size
        word = tirx.op.reinterpret(f"int32x{self.lanes}", k.load_vector(self.buffer, start, size))
        shift = vector % shared * self.bits
        if not shift:
            return word
        return tirx.op.shift_right(word, tirx.Broadcast(const(shift, "int32"), self.lanes))


def pack_codes(codes: Array, bits: int, lanes: int) -> Array:
    """uint8 `[k, n]`, as `LookupPanels` reads them."""
    shared = WORD // bits
    panels = pack_panels(codes, VECTORS, lanes)
    by_word = panels.reshape(*panels.shape[:2], VECTORS // shared, shared, lanes).astype(np.uint32)
    shifts = (np.arange(shared, dtype=np.uint32) * np.uint32(bits))[:, None]
    words = np.bitwise_or.reduce(by_word << shifts, axis=-2)
    return np.asarray(words.astype("<u4").view(np.uint8))


def lookup_tiles(m: int) -> list[GemmTile]:
    """Tiles of whole panels."""
    return [GemmTile(rows, VECTORS) for rows in range(1, min(m, FEW_ROWS) + 1)]


def lookup_cycles(m: int, n: int, depth: int, bits: int, tile: GemmTile, core: Core) -> float:
    """Estimated cycles of a product on one core, with those to bring the codes from memory."""
    vectors = -(-n // core.lanes)

    def of_rows(rows: int) -> float:
        return vectors * (core.speed.multiply * rows + LOOK_UP)

    return depth * axis_cycles(m, tile.rows, of_rows) + weights_cycles(n * depth) * bits / WORD

"""The right operand of a multiplication as integers of four or eight bits, which are decoded in registers: a quarter or an eighth of
the memory is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.panels import Panels, pack_panels

NIBBLE = 4


@dataclass(frozen=True, kw_only=True)
class EncodedPanels(Panels):
    """Panels of bytes, or with `nibbles` of pairs of rows, the first in the low half of a byte.

    A level stands for `level * scale + offset`, or for itself without `scales`; these lie as `[panel, block, vectors * lanes]`
    float32, a block having `size` rows.
    """

    nibbles: bool
    scales: Buffer | None
    offsets: Buffer | None
    size: int

    def load(self, k: KernelBuilder, batch: Sequence[Expr], panel: Expr, depth: Expr, vector: int) -> Expr:
        """One vector of columns of a row, float32."""
        levels = self._levels(k, panel, depth, vector)
        value = tirx.Cast(f"float32x{self.lanes}", levels)
        if self.scales is None:
            return value
        blocks = -(-self.depth // self.size)
        start = (panel * blocks + depth // self.size) * self.vectors * self.lanes + vector * self.lanes
        value = value * k.load_vector(self.scales, start, self.lanes)
        return value if self.offsets is None else value + k.load_vector(self.offsets, start, self.lanes)

    def _levels(self, k: KernelBuilder, panel: Expr, depth: Expr, vector: int) -> Expr:
        rows = -(-self.depth // 2) if self.nibbles else self.depth
        row = depth // 2 if self.nibbles else depth
        start = ((panel * rows + row) * self.vectors + vector) * self.lanes
        kind = f"int32x{self.lanes}"
        levels = tirx.Cast(kind, k.load_vector(self.buffer, start, self.lanes))
        if not self.nibbles:
            return levels
        shift = tirx.Cast("int32", depth % 2 * NIBBLE)
        moved = tirx.op.shift_right(levels, tirx.Broadcast(shift, self.lanes))
        return tirx.op.bitwise_and(moved, tirx.Broadcast(const(15, "int32"), self.lanes))


def pack_levels(
    levels: np.ndarray[Any, Any], nibbles: bool, vectors: int, lanes: int
) -> np.ndarray[Any, Any]:
    """`[k, n]` bytes, all below 16 for `nibbles`, as `EncodedPanels` reads them."""
    if not nibbles:
        return pack_panels(levels, vectors, lanes)
    rows = np.pad(levels, [(0, len(levels) % 2), (0, 0)])
    return pack_panels(rows[::2] | rows[1::2] << NIBBLE, vectors, lanes)

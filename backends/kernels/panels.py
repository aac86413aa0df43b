"""The right operand of a multiplication packed into panels of columns, at compile time or by a kernel.

A panel holds `width` columns as `[k, width]`, in the order in which the multiplication reads them; columns beyond the
matrix are zero at compile time and anything at run time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.transpose import transpose_block
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Strided, row_major_strides
from graphopt.backends.tensor import Storage, Tensor

PARALLEL_ELEMENTS = 32768
"""Elements packed by a kernel below which it stays on one thread."""


@dataclass(frozen=True)
class Panels:
    """Packed matrices `[batch..., panel, depth, vectors * lanes]` in `buffer`."""

    buffer: Buffer
    batch: tuple[int, ...]
    count: int
    depth: int
    vectors: int
    lanes: int

    def position(self, batch: Sequence[Expr], panel: Expr, depth: Expr) -> Expr:
        """Where row `depth` of a panel starts."""
        which: Expr = 0
        for i, stride in zip(batch, row_major_strides(self.batch), strict=True):
            which = which + i * stride
        return ((which * self.count + panel) * self.depth + depth) * self.vectors * self.lanes

    def load(self, k: KernelBuilder, batch: Sequence[Expr], panel: Expr, depth: Expr, vector: int) -> Expr:
        """One vector of columns of a row."""
        return k.load_vector(
            self.buffer, self.position(batch, panel, depth) + vector * self.lanes, self.lanes
        )


def panel_count(columns: int, vectors: int, lanes: int) -> int:
    """Panels that cover `columns`."""
    return -(-columns // (vectors * lanes))


def pack_panels(matrices: np.ndarray[Any, Any], vectors: int, lanes: int) -> np.ndarray[Any, Any]:
    """`[batch..., k, n]` to `[batch..., panel, k, vectors * lanes]`, missing columns zero."""
    *batch, k, n = matrices.shape
    width = vectors * lanes
    padded = np.zeros((*batch, k, panel_count(n, vectors, lanes) * width), matrices.dtype)
    padded[..., :n] = matrices
    panels = padded.reshape(*batch, k, panel_count(n, vectors, lanes), width)
    return np.ascontiguousarray(np.moveaxis(panels, -2, -3))


def emit_transposed_panels(k: KernelBuilder, source: Tensor, panels: Panels) -> None:
    """Pack `[batch..., k, n]` whose rows (k) lie next to each other in memory, by transposing blocks in registers."""
    assert source.storage is not None
    depth, columns = source.shape[-2:]
    groups = -(-columns // panels.lanes)
    units = [math.prod(panels.batch), groups]
    kind = loop_kind(source.size, PARALLEL_ELEMENTS)
    with k.loop(math.prod(units), kind, "unit") as unit:
        which, group = (k.bind(index) for index in split_index(unit, units))
        batch = split_index(which, panels.batch)
        panel, vector = (k.bind(index) for index in split_index(group, [panels.count, panels.vectors]))
        base = k.bind(panels.position(batch, panel, 0) + vector * panels.lanes)

        def whole() -> None:
            _pack_group(k, source.storage, batch, panels, group, base, panels.lanes, depth)

        def partial() -> None:
            _pack_group(k, source.storage, batch, panels, group, base, columns % panels.lanes, depth)

        if columns % panels.lanes:
            k.switch([(group < groups - 1, whole)], partial)
        else:
            whole()


def _pack_group(
    k: KernelBuilder,
    source: Storage | None,
    batch: list[Expr],
    panels: Panels,
    group: Expr,
    base: Expr,
    columns: int,
    depth: int,
) -> None:
    """Pack `columns` columns (one vector of them), `lanes` rows at a time and the rest row by row."""
    assert source is not None
    layout = source.layout
    assert isinstance(layout, Strided)
    lanes, width = panels.lanes, panels.lanes * panels.vectors

    def at(column: Expr, row: Expr) -> Expr:
        return layout.position([*batch, row, group * lanes + column])

    blocks = depth // lanes if columns == lanes else 0
    if blocks:
        with k.loop(blocks, "serial", "block") as block:
            rows = [
                k.bind(k.load_vector(source.buffer, at(column, block * lanes), lanes))
                for column in range(lanes)
            ]
            for row, vector in enumerate(transpose_block(k, rows)):
                k.store_vector(panels.buffer, base + (block * lanes + row) * width, vector, lanes)
    rest = depth - blocks * lanes
    if rest:
        with k.loop(columns, "serial", "column") as column, k.loop(rest, "serial", "row") as row:
            depth_at = row + blocks * lanes
            value = k.load(source.buffer, at(column, depth_at))
            k.store(panels.buffer, base + depth_at * width + column, value)

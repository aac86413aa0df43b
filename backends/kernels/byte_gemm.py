"""Multiplication of bytes into exact int32 sums, four rows of the right operand at a time, which is packed at compile time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.gemm import GemmKernel, Tile
from graphopt.backends.kernels.lanes import Scalar
from graphopt.backends.kernels.panels import Panels, pack_panels
from graphopt.backends.kernels.quads import QUAD, Quads
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import broadcast_index


def pack_quad_panels(matrix: np.ndarray[Any, Any], vectors: int, quads: Quads) -> np.ndarray[Any, Any]:
    """`[k, n]` int8 to `[panel, k / 4, vectors * lanes, 4]`, missing columns and rows zero."""
    k, n = matrix.shape
    padded = np.zeros((-(-k // QUAD) * QUAD, n), np.int8)
    padded[:k] = matrix
    rows = [pack_panels(padded[row::QUAD], vectors, quads.lanes) for row in range(QUAD)]
    return quads.pack(np.stack(rows, axis=-1)).astype(quads.weights_dtype)


@dataclass(frozen=True, kw_only=True)
class ByteGemmKernel(GemmKernel):
    """`left [m, k]` has its k next to each other, a multiple of four; `right` are the panels of `pack_quad_panels`, whose lanes
    are elements. Zero points are left to the caller."""

    quads: Quads

    @property
    def depth(self) -> int:
        return self.left.shape[-1] // QUAD

    @property
    def reads_along_depth(self) -> bool:
        return self.quads.dot.by_lane and self.depth >= self.lanes

    def multiply(
        self, k: KernelBuilder, tile: Tile, first: int, depth: Expr, scalars: list[Scalar] | None
    ) -> None:
        panels = self.right
        assert isinstance(panels, Panels)
        start = k.bind(panels.position(broadcast_index(tile.prefix, panels.batch), tile.panel, depth))
        right = [
            self.quads.weights(k, panels.buffer, start + v * self.quads.step) for v in range(len(tile.widths))
        ]
        for row in range(tile.rows):
            if scalars is None:
                scalar = self.quads.scalar(k, *self._quad(tile, row, depth))
            else:
                scalar = [scalars[row](self.lanes)]
            for v, weights in enumerate(right):
                place = (first + row * len(right) + v) * self.lanes
                total = self.quads.add(k.read_vector(tile.sums, place, self.lanes), scalar, weights)
                k.assign(tile.sums, place, total, self.lanes)

    def _lanes(self, k: KernelBuilder, tile: Tile, depth: Expr) -> list[list[Scalar]]:
        rows = [self.quads.words(k, *self._quad(tile, row, depth), self.lanes) for row in range(tile.rows)]
        return [[partial(self.quads.lane, words, lane) for words in rows] for lane in range(self.lanes)]

    def _quad(self, tile: Tile, row: int, depth: Expr) -> tuple[Buffer, Expr]:
        """Where a quad of a row is."""
        storage = self.left.storage
        assert storage is not None
        assert isinstance(storage.layout, Strided)
        return storage.buffer, storage.layout.position(self.left_index(tile, row, depth * QUAD))

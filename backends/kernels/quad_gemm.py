"""Multiplication of bytes into exact int32 sums, four rows of the right operand at a time, which is packed at compile time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.gemm import GemmKernel, Tile
from graphopt.backends.kernels.lanes import Scalar
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.quads import QUAD, Quads
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import broadcast_index


@dataclass(frozen=True, kw_only=True)
class QuadGemmKernel(GemmKernel):
    """`left [m, k]` has its k next to each other, a multiple of four; `right` are the panels of `pack_unit_panels`, whose lanes
    are elements. Zero points are left to the caller."""

    arithmetic: Quads

    @property
    def depth(self) -> int:
        return self.left.shape[-1] // QUAD

    @property
    def reads_along_depth(self) -> bool:
        return self.arithmetic.dot.by_lane and self.depth >= self.lanes

    def multiply(
        self, k: KernelBuilder, tile: Tile, first: int, depth: Expr, scalars: list[Scalar] | None
    ) -> None:
        panels = self.right
        assert isinstance(panels, Panels)
        start = k.bind(panels.position(broadcast_index(tile.prefix, panels.batch), tile.panel, depth))
        right = [
            self.arithmetic.weights(k, panels.buffer, start + v * self.arithmetic.step)
            for v in range(len(tile.widths))
        ]
        for row in range(tile.rows):
            if scalars is None:
                scalar = self.arithmetic.scalar(k, *self._quad(tile, row, depth))
            else:
                scalar = [scalars[row](self.lanes)]
            for v, weights in enumerate(right):
                place = (first + row * len(right) + v) * self.lanes
                total = self.arithmetic.add(k.read_vector(tile.sums, place, self.lanes), scalar, weights)
                k.assign(tile.sums, place, total, self.lanes)

    def load_lanes(self, k: KernelBuilder, tile: Tile, depth: Expr) -> list[list[Scalar]]:
        rows = [
            self.arithmetic.words(k, *self._quad(tile, row, depth), self.lanes) for row in range(tile.rows)
        ]
        return [[partial(self.arithmetic.lane, words, lane) for words in rows] for lane in range(self.lanes)]

    def _quad(self, tile: Tile, row: int, depth: Expr) -> tuple[Buffer, Expr]:
        """Where a quad of a row is."""
        storage = self.left.storage
        assert storage is not None
        assert isinstance(storage.layout, Strided)
        return storage.buffer, storage.layout.position(self.left_index(tile, row, depth * QUAD))

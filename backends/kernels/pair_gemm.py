"""Multiplication by pairs: several rows of the right operand at a time, which is packed at compile time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.gemm import GemmKernel, Tile
from graphopt.backends.kernels.lanes import Scalar, lane_of
from graphopt.backends.kernels.narrow import Narrow
from graphopt.backends.kernels.pairs import Pairs
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import broadcast_index


@dataclass(frozen=True, kw_only=True)
class PairGemmKernel(GemmKernel):
    """`left [m, k]` has its k next to each other, a multiple of a pair's elements; `right` are the panels of `pack_unit_panels`,
    whose lanes are elements. Zero points are left to the caller."""

    pairs: Pairs | Narrow

    @property
    def depth(self) -> int:
        return self.left.shape[-1] // self.pairs.unit

    @property
    def reads_along_depth(self) -> bool:
        """Whether vectors of the left operand hold the pairs of as many steps."""
        return self.pairs.by_lane and self.depth >= self.lanes

    def load_lanes(self, k: KernelBuilder, tile: Tile, depth: Expr) -> list[list[Scalar]]:
        storage, pairs = self.left.storage, self.pairs
        assert storage is not None
        assert isinstance(storage.layout, Strided)
        starts = [
            storage.layout.position(self.left_index(tile, row, depth * pairs.unit))
            for row in range(tile.rows)
        ]
        vectors = [pairs.vector(k, storage.buffer, at, self.lanes) for at in starts]
        return [[partial(lane_of, vector, lane) for vector in vectors] for lane in range(self.lanes)]

    def multiply(
        self, k: KernelBuilder, tile: Tile, first: int, depth: Expr, scalars: list[Scalar] | None
    ) -> None:
        panels, storage, pairs = self.right, self.left.storage, self.pairs
        assert isinstance(panels, Panels)
        assert storage is not None
        assert isinstance(storage.layout, Strided)
        start = k.bind(panels.position(broadcast_index(tile.prefix, panels.batch), tile.panel, depth))
        right = [pairs.weights(k, panels.buffer, start + v * pairs.step) for v in range(len(tile.widths))]
        for row in range(tile.rows):
            at = storage.layout.position(self.left_index(tile, row, depth * pairs.unit))
            scalar = (
                pairs.scalar(k, storage.buffer, at)
                if scalars is None
                else pairs.operands(k, scalars[row](self.lanes))
            )
            for v, weights in enumerate(right):
                place = (first + row * len(right) + v) * self.lanes
                total = pairs.add(k, k.read_vector(tile.sums, place, self.lanes), scalar, weights)
                k.assign(tile.sums, place, total, self.lanes)

"""Multiplication by a matrix of which whole vectors are zero: each panel is a vector of columns and skips rows of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import GemmKernel, GemmTile, Tile
from graphopt.backends.kernels.kept import Kept, kept_rows, sparse_core, sparse_step_cycles
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.tile_cost import axis_cycles, fits, weights_cycles

MOST_ROWS = 28


@dataclass(frozen=True, kw_only=True)
class SparseGemmKernel(GemmKernel):
    """`right` is a buffer of the vectors that `kept` tells of, and the tile has one vector of columns."""

    kept: Kept

    def accumulate(self, k: KernelBuilder, tile: Tile, copies: int) -> None:
        first, count = self.kept.span(k, tile.panel)
        rounds = count // copies if isinstance(count, int) else tirx.op.floordiv(count, copies)
        with k.loop(rounds, "serial", "round") as step:
            for copy in range(copies):
                self._add_vector(k, tile, copy * tile.rows, first + step * copies + copy)
        if copies > 1:
            with k.loop(count - rounds * copies, "serial", "rest") as step:
                self._add_vector(k, tile, 0, first + rounds * copies + step)

    def _add_vector(self, k: KernelBuilder, tile: Tile, sums: int, vector: Expr) -> None:
        """The products of one vector of weights with its row of the left operand, added to the sums from `sums`."""
        assert isinstance(self.right, Panels)
        depth = self.kept.row(k, vector)
        weights = k.bind(k.load_vector(self.right.buffer, vector * self.lanes, self.lanes))
        for row in range(tile.rows):
            at = (sums + row) * self.lanes
            scalar = self.broadcast(k, tile, row, depth)(self.lanes)
            k.assign(tile.sums, at, k.read_vector(tile.sums, at, self.lanes) + weights * scalar, self.lanes)


def sparse_tiles(m: int, core: Core) -> Iterator[GemmTile]:
    """Those that fit into registers."""
    for rows in range(1, min(m, MOST_ROWS) + 1):
        if fits(1, rows, sparse_core(core)):
            yield GemmTile(rows, 1)


def sparse_gemm_cycles(m: int, n: int, depth: int, per_cent: int, tile: GemmTile, core: Core) -> float:
    """Estimated cycles of a product on one core, `per_cent` of whose vectors of weights are stored."""
    kept, panels = kept_rows(depth, per_cent), -(-n // core.lanes)
    steps = kept * panels * axis_cycles(m, tile.rows, lambda rows: sparse_step_cycles(rows, kept, core))
    return steps + weights_cycles(kept * panels * core.lanes)

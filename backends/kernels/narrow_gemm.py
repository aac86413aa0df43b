"""Multiplication of float16, whose sums are float16 for a part of the depth at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.gemm import Tile
from graphopt.backends.kernels.narrow import Narrow, parts
from graphopt.backends.kernels.pair_gemm import PairGemmKernel


@dataclass(frozen=True, kw_only=True)
class NarrowGemmKernel(PairGemmKernel):
    """`core` is one of `wide_core`."""

    pairs: Narrow

    def accumulate(self, k: KernelBuilder, tile: Tile, copies: int) -> None:
        vectors = copies * tile.rows * len(tile.widths)
        for start, length, count in self._parts():
            with k.loop(count, "serial", "part") as part:
                narrow = self.pairs.start(k, vectors)
                first: Expr = start + part * length
                self.add_products(k, replace(tile, sums=narrow), copies, first, length)
                self.pairs.widen(k, narrow, tile.sums, vectors)

    def _parts(self) -> list[tuple[int, int, int]]:
        """The depth in parts of whole vectors, and what is left."""
        whole = self.depth // self.lanes * self.lanes
        found = parts(whole // self.lanes, self.pairs.half.terms // self.lanes)
        runs = [(start * self.lanes, length * self.lanes, count) for start, length, count in found]
        return runs if whole == self.depth else [*runs, (whole, self.depth - whole, 1)]

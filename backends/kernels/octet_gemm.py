"""Multiplication of bytes into exact int32 sums, two rows by two columns at a time, eight deep."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.gemm import GemmKernel, Tile
from graphopt.backends.kernels.lanes import Scalar
from graphopt.backends.kernels.octets import OCTET, PAIR, Octets, rows_of_sums
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.quads import QUAD, load_repeated
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.layout import Strided
from graphopt.backends.tensor import Storage, Tensor, broadcast_index

PARALLEL_ELEMENTS = 32768
"""Elements packed below which that stays on one thread."""


def packed_shape(rows: int, depth: int) -> tuple[int, ...]:
    """The shape of `rows` rows as `emit_row_pairs` packs them: `[pair, octet, row of a pair, 8]`."""
    return (-(-rows // PAIR), -(-depth // OCTET), PAIR, OCTET)


def emit_row_pairs(k: KernelBuilder, left: Tensor, out: Storage) -> None:
    """Pack `left [m, k]`, whose k lie next to each other and are a multiple of four. A row without a second one is there twice, and
    so is a quad without a second one: what they add to sums is not stored, or multiplied by zeros."""
    storage, (rows, depth) = left.storage, left.shape
    assert storage is not None

    def pair(number: Expr, first: Expr, second: Expr) -> None:
        starts = [k.bind(storage.layout.position([row, 0])) for row in (first, second)]
        begin = k.bind(out.layout.position([number, 0, 0, 0]))

        def octets(at: Expr, words: int) -> None:
            both = []
            for start in starts:
                quads = load_repeated(k, storage.buffer, start + at, words, PAIR * PAIR)
                both.append(k.bind(tirx.op.reinterpret(f"int64x{PAIR}", quads)))
            for half in range(max(words // PAIR, 1)):
                together = tirx.Shuffle(both, [half, PAIR + half])
                vector = tirx.op.reinterpret(f"{out.buffer.dtype}x{PAIR * OCTET}", together)
                k.store_vector(out.buffer, begin + PAIR * (at + half * OCTET), vector, PAIR * OCTET)

        whole = depth // (PAIR * OCTET) * PAIR * OCTET
        with k.loop(whole // (PAIR * OCTET), "serial", "octets") as step:
            octets(step * (PAIR * OCTET), PAIR * PAIR)
        for at in range(whole, depth, OCTET):
            octets(at, min((depth - at) // QUAD, PAIR))

    with k.loop(rows // PAIR, loop_kind(rows * depth, PARALLEL_ELEMENTS), "pair") as number:
        pair(number, number * PAIR, number * PAIR + 1)
    if rows % PAIR:
        pair(rows // PAIR, rows - 1, rows - 1)


@dataclass(frozen=True, kw_only=True)
class OctetGemmKernel(GemmKernel):
    """`left` is packed by `emit_row_pairs`, and tiles have an even number of rows; `right` are the panels of `pack_unit_panels`,
    whose lanes are elements. Zero points are left to the caller."""

    arithmetic: Octets

    @property
    def depth(self) -> int:
        return self.left.shape[1]

    @property
    def reads_along_depth(self) -> bool:
        return False

    def held_rows(self, rows: int) -> int:
        return rows + rows % PAIR

    def multiply(
        self, k: KernelBuilder, tile: Tile, first: int, depth: Expr, scalars: list[Scalar] | None
    ) -> None:
        panels, vectors = self.right, len(tile.widths)
        assert isinstance(panels, Panels)
        start = k.bind(panels.position(broadcast_index(tile.prefix, panels.batch), tile.panel, depth))
        pairs = {row: self._pair(k, tile, row, depth) for row in range(0, tile.rows, PAIR)}
        for v in range(vectors):
            weights = self.arithmetic.weights(k, panels.buffer, start + v * self.arithmetic.step)
            for row, octets in pairs.items():
                for half, columns in enumerate(weights):
                    place = (first + (row + half) * vectors + v) * self.lanes
                    total = self.arithmetic.add(k.read_vector(tile.sums, place, self.lanes), octets, columns)
                    k.assign(tile.sums, place, total, self.lanes)

    def _pair(self, k: KernelBuilder, tile: Tile, row: int, depth: Expr) -> Expr:
        """The octets of two rows from `row`."""
        storage = self.left.storage
        assert storage is not None
        assert isinstance(storage.layout, Strided)
        number = tirx.op.floordiv(tile.y + row, PAIR)
        return k.bind(
            k.load_vector(storage.buffer, storage.layout.position([number, depth, 0, 0]), PAIR * OCTET)
        )

    def _settle(self, k: KernelBuilder, tile: Tile) -> None:
        vectors = len(tile.widths)
        for first in range(0, tile.rows, PAIR):
            for v in range(vectors):
                places = [((first + row) * vectors + v) * self.lanes for row in range(PAIR)]
                halves = [k.bind(k.read_vector(tile.sums, place, self.lanes)) for place in places]
                for place, row in zip(places, rows_of_sums(*halves), strict=True):
                    k.assign(tile.sums, place, row, self.lanes)

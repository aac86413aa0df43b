"""Direct convolution of bytes, eight input channels of two pixels at a time.

Channels are in blocks of four, so that the octet of a pixel lies in two places; an instruction brings those of two neighbouring
pixels together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.kernels.byte_conv import ByteConvKernel, Pixel
from graphopt.backends.kernels.conv import Place, Tap
from graphopt.backends.kernels.octets import OCTET, PAIR, Octets, pair_of_rows, rows_of_sums
from graphopt.backends.kernels.quads import QUAD


@dataclass(frozen=True, kw_only=True)
class OctetConvKernel(ByteConvKernel):
    """Sums are matrices of two pixels and two channels, until all products are added."""

    arithmetic: Octets

    def _tile(self, k: KernelBuilder, place: Place) -> None:
        products, inputs = self._products(k, place)
        sums = k.local(place.vectors * self.lanes, self.dtype)
        self._initialise(k, sums, place)
        self._add_all_zeros(k, sums, place)
        self._add_products(k, sums, products, place)
        if inputs is not None:
            self._add_shifts(k, sums, self._inputs_of_pixels(k, inputs, place), place)
        self._store_all(k, sums, place)

    def _products(self, k: KernelBuilder, place: Place) -> tuple[Local, Local | None]:
        """The sums of products, and those of inputs where somebody needs them, as matrices: for each block of channels and every
        two pixels two, and one."""
        pairs = _pairs(place)
        products = self._zeros(k, PAIR * len(pairs) * place.blocks)
        inputs = None if self.shifts is None else self._zeros(k, len(pairs))
        full, rest = divmod(-(-self.shape.channels // QUAD), PAIR)

        def octet(number: Expr, blocks: int) -> None:
            for ky, kx, pixels in self._taps(k, place):
                tap = Tap(number, 1, 0, ky, kx)
                rows = self._rows(k, place, tap, blocks, pixels)
                self._multiply_octet(k, products, place, tap, rows)
                if inputs is not None:
                    for pair, octets in rows.items():
                        self._add_matrix(k, inputs, pair, octets, self.arithmetic.ones(blocks))

        if full:
            with k.loop(full, "serial", "octet") as number:
                octet(number, PAIR)
        if rest:
            octet(full, 1)
        return products, inputs

    def _multiply_octet(
        self,
        k: KernelBuilder,
        products: Local,
        place: Place,
        tap: Tap,
        rows: Mapping[int, Expr],
    ) -> None:
        """The products of an octet of channels, given the activations of pairs of pixels."""
        first, pairs = self._octets_position(place, tap), len(_pairs(place))
        for block in range(place.blocks):
            weights = self.arithmetic.weights(k, self.weights, first + block * self.arithmetic.step)
            for pair, octets in rows.items():
                for half, columns in enumerate(weights):
                    self._add_matrix(k, products, (block * pairs + pair) * PAIR + half, octets, columns)

    def _add_matrix(self, k: KernelBuilder, sums: Local, number: int, rows: Expr, columns: Expr) -> None:
        at = number * self.lanes
        k.assign(
            sums, at, self.arithmetic.add(k.read_vector(sums, at, self.lanes), rows, columns), self.lanes
        )

    def _rows(
        self, k: KernelBuilder, place: Place, tap: Tap, blocks: int, pixels: list[Pixel]
    ) -> dict[int, Expr]:
        """The octets of every pair of pixels of which one at least reads something; the other one's are zeros then. Where there is
        but one block of channels, it is read twice: the weights of the second one are zeros."""
        halves = [
            self._words(k, place, replace(tap, block=tap.block * PAIR + number), pixels)
            for number in range(blocks)
        ]
        zero = (k.bind(tirx.Broadcast(const(0, "int32"), self.lanes)), 0)
        words = {pixel: [half[pixel] for half in (halves[0], halves[-1])] for pixel in pixels}
        pairs = {
            number: [words.get(pixel, [zero] * PAIR) for pixel in pair]
            for number, pair in enumerate(_pairs(place))
            if any(pixel in words for pixel in pair)
        }
        return {number: k.bind(pair_of_rows(pair, zero)) for number, pair in pairs.items()}

    def _words(
        self, k: KernelBuilder, place: Place, tap: Tap, pixels: list[Pixel]
    ) -> dict[Pixel, tuple[Expr, int]]:
        """In which register and lane the four channels of a block are for each pixel."""
        found = {}
        for buffer, position, extent, numbers in self._runs(place, tap, pixels):
            words = self.arithmetic.words(k, buffer, position, extent)
            found.update({pixel: (words, number) for pixel, number in numbers.items()})
        return found

    def _add_products(self, k: KernelBuilder, sums: Local, products: Local, place: Place) -> None:
        pairs = _pairs(place)
        for block in range(place.blocks):
            for number, pair in enumerate(pairs):
                first = (block * len(pairs) + number) * PAIR * self.lanes
                halves = [
                    k.bind(k.read_vector(products, first + half * self.lanes, self.lanes))
                    for half in range(PAIR)
                ]
                for pixel, row in zip(pair, rows_of_sums(*halves), strict=False):
                    vector = place.vector(block, pixel) * self.lanes
                    k.assign(sums, vector, k.read_vector(sums, vector, self.lanes) + row, self.lanes)

    def _inputs_of_pixels(self, k: KernelBuilder, inputs: Local, place: Place) -> Local:
        """The sum of every pixel's inputs, for all lanes."""
        of_pixels = self._zeros(k, len(place.pixels))
        for number, pair in enumerate(_pairs(place)):
            matrix = k.bind(k.read_vector(inputs, number * self.lanes, self.lanes))
            for i, (_, row) in enumerate(zip(pair, rows_of_sums(matrix, matrix), strict=False)):
                k.assign(of_pixels, (number * PAIR + i) * self.lanes, row, self.lanes)
        return of_pixels

    def _octets_position(self, place: Place, tap: Tap) -> Expr:
        """Where the weights of an octet for the tile's filters start."""
        kh, kw = self.shape.window.kernel
        row = tap.block * (kh * kw) + tap.y * kw + tap.x
        rows = -(-self.shape.channels // OCTET) * kh * kw
        return self._filters_position(place, row, rows) * self.arithmetic.step


def _pairs(place: Place) -> list[list[Pixel]]:
    """The pixels of a tile by twos; the last one may be alone."""
    pixels = place.pixels
    return [pixels[first : first + PAIR] for first in range(0, len(pixels), PAIR)]

"""Local response normalisation of a blocked tensor: x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta.

Neighbours in the next or the previous block of channels are shifted in from its vector (Krizhevsky et al., "ImageNet
Classification with Deep Convolutional Neural Networks", 2012, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.power import positive_power
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor

PARALLEL_ELEMENTS = 16384
"""Elements below which the kernel stays on one thread."""


@dataclass(frozen=True)
class LocalResponseKernel:
    """`size` neighbours, of which a vector on either side holds all: at most `2 * lanes + 1`. `input` is blocked."""

    lanes: int
    input: Tensor
    size: int
    alpha: float
    beta: float
    bias: float
    epilogue: Epilogue
    out: Storage

    def emit(self, k: KernelBuilder) -> None:
        batch, channels, *spatial = self.input.shape
        blocks = -(-channels // self.lanes)
        *rows, columns = spatial
        units = [batch, *rows]
        kind = loop_kind(self.input.size, PARALLEL_ELEMENTS)
        with k.loop(math.prod(units), kind, "row") as unit:
            n, *row = (k.bind(i) for i in split_index(unit, units))
            with k.loop(columns, "serial", "x") as x:
                place = [*row, x]
                self._block(k, n, place, 0, False, blocks > 1)
                if blocks > 2:
                    with k.loop(blocks - 2, "serial", "block") as block:
                        self._block(k, n, place, block + 1, True, True)
                if blocks > 1:
                    self._block(k, n, place, blocks - 1, True, False)

    def _block(
        self, k: KernelBuilder, n: Expr, place: list[Expr], block: Expr, has_before: bool, has_after: bool
    ) -> None:
        lanes = self.lanes
        zero = tirx.Broadcast(const(0.0, "float32"), lanes)
        own = self._squares(k, n, place, block)
        before = self._squares(k, n, place, block - 1) if has_before else zero
        after = self._squares(k, n, place, block + 1) if has_after else zero
        total: Expr = own
        for distance in range(1, (self.size - 1) // 2 + 1):
            total = k.bind(total + _shifted(before, own, lanes, lanes - distance))
        for distance in range(1, self.size // 2 + 1):
            total = k.bind(total + _shifted(own, after, lanes, distance))
        sums = k.local(lanes, "float32")
        k.assign(sums, 0, total, lanes)
        with k.loop(lanes, "vector", "lane") as lane:
            index = [n, block * lanes + lane, *place]
            base = k.bind(sums[lane] * const(self.alpha / self.size, "float32") + const(self.bias, "float32"))
            factor = positive_power(k, base, -self.beta)
            self.epilogue.store(k, self.out, index, self.input.read(k, index) * factor)

    def _squares(self, k: KernelBuilder, n: Expr, place: list[Expr], block: Expr) -> Expr:
        assert self.input.storage is not None
        layout = self.input.storage.layout
        assert isinstance(layout, Blocked)
        at = layout.block_position(n, block, place)
        vector = k.bind(k.load_vector(self.input.storage.buffer, at, self.lanes))
        return k.bind(vector * vector)


def _shifted(low: Expr, high: Expr, lanes: int, first: int) -> Expr:
    """`lanes` lanes from lane `first` of two vectors in a row."""
    return tirx.Shuffle([low, high], [const(first + lane, "int32") for lane in range(lanes)])

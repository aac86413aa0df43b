"""Depthwise convolution of bytes with exact sums, and a plain one for weights that are known only at run time.

Sums are int32, or float32 where the caller has shown that they stay below 2**24.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, cast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.geometry import Tiles
from graphopt.backends.kernels.sliding import SlidingKernel
from graphopt.backends.kernels.window import Window, split_index
from graphopt.backends.tensor import Tensor

Store = Callable[[KernelBuilder, Sequence[Expr], Expr], None]
"""Stores a sum, given its logical output index."""


@dataclass(frozen=True)
class IntegerDepthwiseKernel(SlidingKernel):
    """One filter a channel. `weights` are packed by `pack_depthwise`; the input is blocked and has a zero point."""

    weights: Buffer
    zero: int
    store: Store

    @property
    def accumulator(self) -> str:
        return self.weights.dtype

    def load(self, k: KernelBuilder, n: Expr, block: Expr, y: Expr, x: Expr) -> Expr:
        vector = super().load(k, n, block, y, x)
        wide = cast(cast(vector, f"int32x{self.lanes}"), f"{self.accumulator}x{self.lanes}")
        zero = tirx.Broadcast(const(self.zero, self.accumulator), self.lanes)
        return k.bind(wide - zero if self.zero else wide)

    def initial(self, k: KernelBuilder, block: Expr) -> Expr:
        return tirx.Broadcast(const(0, self.weights.dtype), self.lanes)

    def tap(self, k: KernelBuilder, block: Expr, ky: Expr, kx: Expr) -> Expr:
        height, width = self.window.kernel
        return k.bind(
            k.load_vector(self.weights, ((block * height + ky) * width + kx) * self.lanes, self.lanes)
        )

    def combine(self, accumulator: Expr, value: Expr, weight: Expr) -> Expr:
        return accumulator + value * weight

    def finish(
        self, k: KernelBuilder, accumulators: Local, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr
    ) -> None:
        for pixel in range(run.width):
            with k.loop(self.lanes, "vector", "lane") as lane:
                index = self.index(n, block * self.lanes + lane, y, x + pixel)
                self.store(k, index, cast(accumulators[pixel * self.lanes + lane], "int32"))


def emit_plain_conv(
    k: KernelBuilder,
    out: Sequence[int],
    window: Window,
    x: Tensor,
    weights: Tensor,
    groups: int,
    store: Store,
) -> None:
    """One output element after the other; `x` and `weights` are int32 `[n, c, h, w]` without their zero points."""
    filters, channels = weights.shape[0] // groups, weights.shape[1]
    kh, kw = window.kernel
    with k.loop(math.prod(out), "parallel", "element") as element:
        n, filter_, y, column = (k.bind(i) for i in split_index(element, out))
        total = k.local(1, "int32")
        k.assign(total, 0, const(0, "int32"))
        with k.loop(channels * kh * kw, "serial", "tap") as tap:
            channel, ky, kx = split_index(tap, (channels, kh, kw))
            row, position = k.bind(window.row(y, ky)), k.bind(window.column(column, kx))
            inside = tirx.op.all(row >= 0, row < window.input[0], position >= 0, position < window.input[1])
            with k.when(inside):
                group = tirx.op.floordiv(filter_, filters)
                value = x.read(k, [n, group * channels + channel, row, position])
                k.assign(total, 0, total[0] + value * weights.read(k, [filter_, channel, ky, kx]))
        store(k, [n, filter_, y, column], total[0])

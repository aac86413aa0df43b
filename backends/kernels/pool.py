"""Max and average pooling of a blocked tensor."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, const
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.geometry import Tiles
from graphopt.backends.kernels.sliding import SlidingKernel, lowest


@dataclass(frozen=True)
class MaxPoolKernel(SlidingKernel):
    """The largest input under the window."""

    epilogue: Epilogue

    def initial(self, k: KernelBuilder, block: Expr) -> Expr:
        return lowest(self.input.dtype, self.lanes)

    def tap(self, k: KernelBuilder, block: Expr, ky: Expr, kx: Expr) -> Expr:
        return None

    def combine(self, accumulator: Expr, value: Expr, weight: Expr) -> Expr:
        return tirx.op.max(accumulator, value)

    def finish(
        self, k: KernelBuilder, accumulators: Local, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr
    ) -> None:
        for pixel in range(run.width):
            with k.loop(self.lanes, "vector", "lane") as lane:
                index = self.index(n, block * self.lanes + lane, y, x + pixel)
                self.epilogue.store(k, self.out, index, accumulators[pixel * self.lanes + lane])


@dataclass(frozen=True)
class AveragePoolKernel(SlidingKernel):
    """The mean of the inputs under the window. `ends` are the pads at the bottom and at the right.

    With `count_include_pad` the divisor counts padding, but never what lies beyond it (ceil_mode).
    """

    epilogue: Epilogue
    count_include_pad: bool
    ends: tuple[int, int]

    def initial(self, k: KernelBuilder, block: Expr) -> Expr:
        return tirx.Broadcast(const(0.0, self.input.dtype), self.lanes)

    def tap(self, k: KernelBuilder, block: Expr, ky: Expr, kx: Expr) -> Expr:
        return None

    def combine(self, accumulator: Expr, value: Expr, weight: Expr) -> Expr:
        return accumulator + value

    def finish(
        self, k: KernelBuilder, accumulators: Local, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr
    ) -> None:
        rows = self._rows(y)
        for pixel in range(run.width):
            count = tirx.Cast(self.input.dtype, rows * self._columns(run, pixel))
            scale = k.bind(const(1.0, self.input.dtype) / count)
            with k.loop(self.lanes, "vector", "lane") as lane:
                index = self.index(n, block * self.lanes + lane, y, x + pixel)
                self.epilogue.store(k, self.out, index, accumulators[pixel * self.lanes + lane] * scale)

    def _rows(self, y: Expr) -> Expr:
        if not self.count_include_pad:
            return self.window.row_range(y)[1]
        start = y * self.window.strides[0] - self.window.pads[0]
        span = self.window.input[0] + self.ends[0] - start
        fitting = tirx.op.floordiv(span - 1, self.window.dilations[0]) + 1
        return tirx.op.min(const(self.window.kernel[0], "int32"), fitting)

    def _columns(self, run: Tiles, pixel: int) -> int:
        window = self.window
        if run.interior:
            return window.kernel[1]
        column = run.start + pixel
        if not self.count_include_pad:
            return max(sum(window.axes[1].has(column, tap) for tap in range(window.kernel[1])), 1)
        limit = window.input[1] + self.ends[1]
        return sum(int(window.column(column, tap)) < limit for tap in range(window.kernel[1]))

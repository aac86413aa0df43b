"""Depthwise convolution: every channel with its own filter, lanes along the channels of a blocked tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.kernels.geometry import Tiles
from graphopt.backends.kernels.sliding import SlidingKernel


def pack_depthwise(weights: np.ndarray[Any, Any], lanes: int) -> np.ndarray[Any, Any]:
    """`[channels, 1, kh, kw]` to `[channel blocks, kh, kw, lane]`, missing channels zero."""
    channels, _, kh, kw = weights.shape
    padded = np.zeros((-(-channels // lanes) * lanes, kh, kw), weights.dtype)
    padded[:channels] = weights[:, 0]
    return np.ascontiguousarray(padded.reshape(-1, lanes, kh, kw).transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class DepthwiseKernel(SlidingKernel):
    """`weights` and `bias` are packed to whole blocks of channels."""

    weights: Buffer
    bias: Buffer | None
    epilogue: Epilogue

    def initial(self, k: KernelBuilder, block: Expr) -> Expr:
        if self.bias is None:
            return tirx.Broadcast(tirx.const(0.0, "float32"), self.lanes)
        return k.bind(k.load_vector(self.bias, block * self.lanes, self.lanes))

    def tap(self, k: KernelBuilder, block: Expr, ky: Expr, kx: Expr) -> Expr:
        kh, kw = self.window.kernel
        return k.bind(k.load_vector(self.weights, ((block * kh + ky) * kw + kx) * self.lanes, self.lanes))

    def combine(self, accumulator: Expr, value: Expr, weight: Expr) -> Expr:
        return accumulator + value * weight

    def finish(
        self, k: KernelBuilder, accumulators: Local, run: Tiles, n: Expr, block: Expr, y: Expr, x: Expr
    ) -> None:
        for pixel in range(run.width):
            with k.loop(self.lanes, "vector", "lane") as lane:
                index = self.index(n, block * self.lanes + lane, y, x + pixel)
                self.epilogue.store(k, self.out, index, accumulators[pixel * self.lanes + lane])

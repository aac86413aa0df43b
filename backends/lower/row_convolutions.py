"""Convolutions by kernels with lanes along rows: the part that Conv and ConvTranspose share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast
from graphopt.backends.kernels.conv_rows import Geometry, RowsKernel, Weight
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.row_source import RowSource, emit_padded_rows, padded_rows
from graphopt.backends.layout import Strided
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.channels import channel_rows
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Tensor

Place = Callable[[Sequence[Expr]], Sequence[Expr]]
"""Maps the spatial index that a kernel computes to the one of the node's output."""


@dataclass(frozen=True)
class RowConvolutions:
    """Kernels with lanes along rows that together compute one node."""

    ctx: Lowering
    node: ir.Node
    input: Tensor
    bias: Tensor | None

    def emit(self, parts: Sequence[tuple[Geometry, Weight, Place]]) -> None:
        """Emit one kernel for all parts."""
        ctx, accumulator = self.ctx, accumulator_of(self.input.dtype)
        lanes = ctx.lanes * 4 // np.dtype(accumulator).itemsize
        bias = None if self.bias is None else ctx.strided(self.bias)
        sources = self._sources([geometry.axes[-1] for geometry, _, _ in parts])
        after = epilogue(ctx, self.node)
        out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))
        with ctx.kernel("conv_rows") as k:
            if not after.hole.size:
                return
            for source, (geometry, weight, place) in zip(sources, parts, strict=True):

                def store(k: KernelBuilder, index: Sequence[Expr], value: Expr, place: Place = place) -> None:
                    n, channel, *spatial = index
                    after.store(k, out, [n, channel, *place(spatial)], cast(value, after.dtype))

                core = replace(ctx.core, lanes=lanes)
                RowsKernel(geometry, source, weight, bias, core, accumulator, store).emit(k)

    def _sources(self, axes: Sequence[Axis]) -> list[RowSource]:
        """The input as the rows of every part: in place where no part leaves the image or skips columns."""
        x = channel_rows(self.ctx, self.input)
        layout = storage_of(x).layout
        assert isinstance(layout, Strided)
        if layout.strides[-1] == 1 and all(axis.stride == 1 and axis.is_inside for axis in axes):
            return [RowSource(axis, storage_of(x)) for axis in axes]
        rows = padded_rows(x.shape, axes)
        copy = self.ctx.buffer(rows.size, x.dtype)
        with self.ctx.kernel("pad_rows") as k:
            emit_padded_rows(k, x, rows, copy)
        return [rows.source(axis, copy) for axis in axes]

"""The input of a convolution along rows: in place, or copied once with its rows padded and split by stride.

The copy holds `stride` phases of each padded row one after another, so that neighbouring outputs read neighbouring
elements whatever the stride is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.layout import Strided, row_major_strides
from graphopt.backends.tensor import Storage, Tensor, unravel

PARALLEL_ELEMENTS = 32768
"""Elements copied below which the copy stays on one thread."""


@dataclass(frozen=True)
class RowSource:
    """Rows of `storage`. In a copy (`length` is not 0) element i of the row lies at `begin + i` of the padded row."""

    axis: Axis
    storage: Storage
    begin: int = 0
    length: int = 0

    def load(
        self,
        k: KernelBuilder,
        n: Expr,
        channel: Expr,
        outer: Sequence[Expr],
        tap: Expr,
        column: Expr,
        width: int,
    ) -> Expr:
        """The inputs that `width` outputs from `column` read through a tap of the last axis."""
        layout = self.storage.layout
        shift = tap * self.axis.dilation + self.begin - self.axis.pad
        if self.length and self.axis.stride > 1:
            phase, shift = (
                tirx.op.floormod(shift, self.axis.stride),
                tirx.op.floordiv(shift, self.axis.stride),
            )
            shift = phase * self.length + shift
        return k.load_vector(
            self.storage.buffer, layout.position([n, channel, *outer, shift + column]), width
        )


@dataclass(frozen=True)
class PaddedRows:
    """The shape of a padded copy: `begin` zeros, the row, zeros up to `length * stride`."""

    shape: tuple[int, ...]
    stride: int
    begin: int
    length: int

    @property
    def size(self) -> int:
        return math.prod(self.shape[:-1]) * self.stride * self.length

    def source(self, axis: Axis, buffer: Buffer) -> RowSource:
        """The source that reads the copy in `buffer` for `axis`."""
        strides = row_major_strides((*self.shape[:-1], self.stride * self.length))
        return RowSource(axis, Storage(buffer, Strided(strides)), self.begin, self.length)


def padded_rows(shape: tuple[int, ...], axes: Sequence[Axis]) -> PaddedRows:
    """The copy that serves all of `axes`, which have the same stride."""
    begin = max(0, *(axis.pad for axis in axes))
    ends = [
        (axis.output - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + begin - axis.pad
        for axis in axes
    ]
    stride = axes[0].stride
    return PaddedRows(shape, stride, begin, max(*ends, 0) // stride + 1)


def emit_padded_rows(k: KernelBuilder, source: Tensor, rows: PaddedRows, out: Buffer) -> None:
    """Fill the copy from `source`, whose last axis may have any stride."""
    assert source.storage is not None
    outer, extent = rows.shape[:-1], rows.shape[-1]
    kind = loop_kind(rows.size, PARALLEL_ELEMENTS)
    with k.loop(math.prod(outer), kind, "row") as row:
        prefix = [k.bind(i) for i in unravel(row, outer)]
        base = k.bind(row * (rows.stride * rows.length))
        for phase in range(rows.stride):
            first = min(max(-((phase - rows.begin) // rows.stride), 0), rows.length)
            last = min(max(-((phase - rows.begin - extent) // rows.stride), first), rows.length)
            start = base + phase * rows.length

            def element(position: Expr, phase: int = phase) -> Expr:
                return source.reader(k, [*prefix, position * rows.stride + phase - rows.begin])

            for begin, end, make in ((0, first, None), (first, last, element), (last, rows.length, None)):
                if end > begin:
                    with k.loop(end - begin, "serial", "x") as x:
                        value = const(0, source.dtype) if make is None else make(x + begin)
                        k.store(out, start + begin + x, value)

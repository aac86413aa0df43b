"""Convolutions on tensor cores, and depthwise ones: channels are neighbours in memory, as `wgmma` and `mma` want them.

A convolution is a product whose left operand is gathered: rows are pixels of the result, the depth are taps and the channels of each.
Tensors lie as blocks of all their channels (NHWC), so that a chunk of channels is copied as it lies; only where a chain of
convolutions begins or ends are they moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.cuda.builder import DeviceBuilder, element_size
from graphopt.backends.cuda.channels import block_of_result, channels_last, place_of_transposed
from graphopt.backends.cuda.depthwise import emit_depthwise
from graphopt.backends.cuda.tensor_elements import Element, element_of, widened
from graphopt.backends.cuda.tensor_product import Operand, TensorProduct
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.epilogue import Epilogue
from graphopt.backends.layout import CHUNK, Blocked, ChannelsLast
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.convolution import Convolution, lower_rows
from graphopt.backends.lower.pointwise import epilogue, following
from graphopt.backends.schedules import tensor_convolution, tensor_product
from graphopt.backends.schedules.choice import is_candidate
from graphopt.backends.tensor import Storage, Tensor

Array = np.ndarray[Any, Any]

SUM = "float32"


def lower_convolution(ctx: Lowering, node: ir.Node, convolution: Convolution) -> None:
    """A convolution on tensor cores, by channels where it is depthwise, or any other way."""
    geometry, weights = convolution.geometry, convolution.weights.constant
    element = element_of(ctx, convolution.input.dtype, convolution.weights.dtype)
    if element is None or weights is None or not geometry.batch:
        lower_rows(ctx, node, convolution)
    elif convolution.is_depthwise and geometry.groups >= CHUNK:
        _Lowered(ctx, node, convolution, element).depthwise()
    elif suits_tensor_cores(geometry):
        _Lowered(ctx, node, convolution, element).product()
    else:
        lower_rows(ctx, node, convolution)


def suits_tensor_cores(geometry: Geometry) -> bool:
    """Whether there is anything to multiply, and every one of several groups reads and fills whole chunks."""
    whole = geometry.filters % CHUNK == geometry.channels % CHUNK == 0
    return geometry.macs > 0 and (geometry.groups == 1 or whole)


@dataclass(frozen=True)
class _Lowered:
    """The kernel of one node."""

    ctx: Lowering
    node: ir.Node
    convolution: Convolution
    element: Element

    def product(self) -> None:
        ctx, geometry = self.ctx, self.convolution.geometry
        source, weights = channels_last(ctx, self.convolution.input), self.convolution.weights.constant
        assert weights is not None
        after, out, bias = self._results()

        def store(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
            self._store(k, after, out, bias, index, value)

        kernel = convolution_product(
            ctx, self.element, geometry, storage_of(source), weights, store, isinstance(out.layout, Blocked)
        )
        with ctx.kernel("conv") as k:
            kernel.emit(k)

    def _results(self) -> tuple[Epilogue, Storage, Tensor | None]:
        """The epilogue, where results go, and the bias."""
        ctx, geometry, bias = self.ctx, self.convolution.geometry, self.convolution.bias
        bias = None if bias is None else ctx.strided(bias)
        block = block_of_result(ctx, following(ctx, self.node), geometry.groups * geometry.filters)
        after = epilogue(ctx, self.node, block)
        dtype = after.result.dtype
        out = place_of_transposed(ctx, after.value, after.shape, dtype)
        return after, storage_of(out or ctx.result(after.value, after.shape, dtype, block)), bias

    def _store(
        self,
        k: KernelBuilder,
        after: Epilogue,
        out: Storage,
        bias: Tensor | None,
        index: Sequence[Expr],
        value: Expr,
    ) -> None:
        if bias is not None:
            value = value + cast(bias.reader(k, [index[1]]), SUM)
        after.store(k, out, index, cast(value, after.dtype))

    def depthwise(self) -> None:
        """A thread for a run of neighbouring channels of every pixel."""
        ctx, geometry = self.ctx, self.convolution.geometry
        x = channels_last(ctx, self.convolution.input)
        weights = self.convolution.weights.constant
        assert weights is not None
        by_taps = ctx.constant_buffer(np.ascontiguousarray(weights.reshape(geometry.groups, -1).T))
        after, out, bias = self._results()

        def read(k: KernelBuilder, index: Sequence[Expr]) -> Expr:
            return _input(k, geometry, x, index)

        def weight(k: KernelBuilder, index: Sequence[Expr]) -> Expr:
            return widened(k.load(by_taps, index[1] + index[0] * geometry.groups), SUM)

        def store(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
            self._store(k, after, out, bias, index, value)

        with ctx.kernel("depthwise") as k:
            emit_depthwise(k, geometry, element_size(out.buffer), SUM, read, weight, store)


def convolution_product(
    ctx: Lowering,
    element: Element,
    geometry: Geometry,
    source: Storage,
    weights: Array,
    store: Callable[[KernelBuilder, Sequence[Expr], Expr], None],
    by_rows: bool = True,
) -> TensorProduct:
    """The kernel of `weights [filters of all groups, channels of one, taps...]`; `store` takes an index `[n, channel, place...]` and a
    sum, neighbouring threads neighbouring channels if `by_rows`, else neighbouring places."""
    assert isinstance(source.layout, ChannelsLast)
    channels = geometry.channels if geometry.groups > 1 else source.layout.lanes
    whole = replace(geometry, channels=channels)
    extents = tensor_convolution.extents_of(whole)
    rows = ctx.constant_buffer(_rows_of_filters(weights, channels))

    def filters(k: KernelBuilder, group: Expr, row: Expr) -> Expr:
        return k.bind((group * geometry.filters + row) * extents.depth)

    def weight(k: KernelBuilder, start: Expr, depth: Expr) -> tuple[Expr, None]:
        assert isinstance(k, DeviceBuilder)
        return k.address(rows, start + depth), None

    def store_sum(k: KernelBuilder, group: Expr, row: Expr, column: Expr, value: Expr) -> None:
        n, *place = _split(row, [geometry.batch, *(axis.output for axis in geometry.axes)])
        channel = column if geometry.groups == 1 else k.bind(group * geometry.filters + column)
        store(k, [n, channel, *place], value)

    workload = tensor_convolution.workload(whole, element.size, by_rows)
    tile, parts = tensor_product.tile_of(ctx.schedule(workload, partial(is_candidate, workload, ctx.core)))
    pixels_of = _Pixels(geometry, source, channels)
    left, right = Operand(pixels_of.prepare, pixels_of.chunk), Operand(filters, weight)
    memory = partial(ctx.buffer, dtype=element.sums.dtype)
    return TensorProduct(element, extents, tile, parts, left, right, store_sum, memory, by_rows)


def _rows_of_filters(weights: Array, channels: int) -> Array:
    """`[filters of all groups, taps * channels]`, zeros for channels that do not exist."""
    missing = [(0, 0), (0, channels - weights.shape[1]), *[(0, 0)] * (weights.ndim - 2)]
    last = np.moveaxis(np.pad(weights, missing), 1, -1)
    return np.ascontiguousarray(last.reshape(len(weights), -1))


def _input(k: KernelBuilder, geometry: Geometry, x: Tensor, index: Sequence[Expr]) -> Expr:
    """The input at an index; zero where that is padding."""
    tests = [
        _below(i, axis.input) for axis, i in zip(geometry.axes, index[2:], strict=True) if not axis.is_inside
    ]

    def read() -> Expr:
        return x.reader(k, index)

    return widened(k.guard(tirx.op.all(*tests), read, const(0, x.dtype)) if tests else read(), SUM)


@dataclass(frozen=True)
class _Pixels:
    """The inputs of a convolution as a matrix: a row for each pixel of the result, a depth for each channel of each tap."""

    geometry: Geometry
    source: Storage
    channels: int
    """Of a tap, those of padding included."""

    @property
    def _layout(self) -> ChannelsLast:
        assert isinstance(self.source.layout, ChannelsLast)
        return self.source.layout

    @property
    def _strides(self) -> list[int]:
        """Of the spatial axes."""
        strides, extent = [], self._layout.block
        for axis in reversed(self.geometry.axes):
            strides.append(extent)
            extent *= axis.input
        return strides[::-1]

    def prepare(self, k: KernelBuilder, group: Expr, row: Expr) -> tuple[Expr, list[Expr]]:
        """Where the first tap of a pixel lies, and at which index of every axis."""
        axes, strides = self.geometry.axes, self._strides
        n, *place = _split(row, [self.geometry.batch, *(axis.output for axis in axes)])
        first = [k.bind(axis.source(i, 0)) for axis, i in zip(axes, place, strict=True)]
        image = strides[0] * axes[0].input
        start = n * image + group * self.geometry.channels + self._layout.first
        return k.bind(sum((i * s for i, s in zip(first, strides, strict=True)), start)), first

    def chunk(
        self, k: KernelBuilder, prepared: tuple[Expr, list[Expr]], depth: Expr
    ) -> tuple[Expr, Expr | None]:
        assert isinstance(k, DeviceBuilder)
        axes, (start, first) = self.geometry.axes, prepared
        tap = tirx.op.truncdiv(depth, self.channels)
        channel = depth - tap * self.channels
        steps = [
            i * axis.dilation
            for axis, i in zip(axes, _split(tap, [axis.kernel for axis in axes]), strict=True)
        ]
        moved = sum((i * s for i, s in zip(steps, self._strides, strict=True)), channel)
        tests = [
            _below(at + step, axis.input)
            for axis, at, step in zip(axes, first, steps, strict=True)
            if not axis.is_inside
        ]
        return k.address(self.source.buffer, start + moved), tirx.op.all(*tests) if tests else None


def _below(i: Expr, extent: int) -> Expr:
    """Whether an index, which may be negative, exists. Both comparisons become one of numbers without a sign."""
    return tirx.op.all(i >= 0, i < extent)


def _split(number: Expr, shape: Sequence[int]) -> list[Expr]:
    """The row-major index of a flat one that is not negative."""
    index: list[Expr] = []
    for extent in reversed(shape[1:]):
        index.append(0 if extent == 1 else tirx.op.truncmod(number, const(extent, "int32")))
        number = number if extent == 1 else tirx.op.truncdiv(number, const(extent, "int32"))
    return [0 if shape[0] == 1 else number, *index[::-1]]

"""Convolutions of bytes: exact sums on tensor cores or, of depthwise ones, in threads, whose channels are neighbours in memory.

Weights that are no bytes without their zero point are sums of two. Inputs are multiplied as they lie. What their zero point adds is taken
off at the end: for every pixel and filter the zero point times the weights of the taps that are inside the image, as padding, which is
multiplied as zero, stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.cuda.channels import channels_last
from graphopt.backends.cuda.depthwise import emit_depthwise
from graphopt.backends.cuda.tensor_convolution import convolution_product
from graphopt.backends.cuda.tensor_elements import BYTES
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.layout import whole_chunks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.integer_convolution import Convolution, plain_convolution
from graphopt.backends.tensor import Tensor

Array = np.ndarray[Any, Any]

FEWEST_FILTERS = 8
"""Columns of one instruction."""

SUM = "int32"

PAIR = Axis(input=1, output=1, kernel=2, stride=1, pad=0, dilation=0)
"""The first axis of a window whose weights are sums of two: both taps are one place."""

Zeros = Callable[[KernelBuilder, Sequence[Expr]], Expr]
"""What the zero point of the input adds to the sum at an index."""


def lower_byte_convolution(convolution: Convolution) -> None:
    """A convolution on tensor cores, by channels where it is depthwise, or any other way."""
    weights, units = convolution.centred_weights, BYTES.get(convolution.input.dtype)
    geometry = _geometry(convolution)
    terms = None if weights is None or not geometry.macs else terms_of(weights)
    if terms is None or units is None or convolution.zero is None or convolution.input.rank != 4:
        plain_convolution(convolution)
    elif convolution.is_depthwise:
        _depthwise(convolution, geometry, terms, units.chunk)
    elif geometry.filters >= FEWEST_FILTERS and (
        geometry.groups == 1 or geometry.channels % units.chunk == 0
    ):
        _product(convolution, geometry, terms)
    else:
        plain_convolution(convolution)


def terms_of(weights: Array) -> list[Array] | None:
    """One or two arrays of int8 whose sum are `weights`; None where two do not reach."""
    limits = np.iinfo(np.int8)
    first = weights.clip(limits.min, limits.max)
    rest = weights - first
    if not rest.any():
        return [first.astype(np.int8)]
    return [first.astype(np.int8), rest.astype(np.int8)] if rest.max() <= limits.max else None


def _geometry(convolution: Convolution) -> Geometry:
    shape = convolution.shape
    return Geometry(shape.batch, shape.groups, shape.channels, shape.filters, shape.window.axes)


def _product(convolution: Convolution, geometry: Geometry, terms: Sequence[Array]) -> None:
    """As one product, of twice the depth where weights have two terms."""
    ctx, units = convolution.ctx, BYTES[convolution.input.dtype]
    source = channels_last(ctx, convolution.input, units.chunk)
    zeros = _zero_sums(ctx, geometry, np.stack(terms).sum(axis=0, dtype=np.int32), convolution.zero or 0)
    window, weights = geometry, terms[0]
    if len(terms) > 1:
        window, weights = replace(geometry, axes=(PAIR, *geometry.axes)), np.stack(terms, axis=2)
    store, _ = convolution.result(whole_chunks(geometry.groups * geometry.filters, units.chunk))

    def finish(k: KernelBuilder, index: Sequence[Expr], total: Expr) -> None:
        index = [*index[:2], *index[-len(geometry.axes) :]]
        store(k, index, total if zeros is None else total - zeros(k, index))

    kernel = convolution_product(ctx, units, window, storage_of(source), weights, finish)
    with ctx.kernel("integer_conv") as k:
        kernel.emit(k)


def _zero_sums(ctx: Lowering, geometry: Geometry, weights: Array, zero: int) -> Zeros | None:
    """Pixels whose windows lie alike within the image share a row of sums; None where they are all zero."""
    if not zero:
        return None
    inside = [_inside(axis) for axis in geometry.axes]
    kinds, numbers = zip(*(np.unique(each, axis=0, return_inverse=True) for each in inside), strict=True)
    sums = weights.sum(axis=1, dtype=np.int64)
    for kind in kinds[::-1]:
        sums = np.moveaxis(sums @ kind.T.astype(np.int64), -1, 1)
    table = ctx.constant((np.moveaxis(sums, 0, -1) * zero).astype(np.int32))
    rows = [ctx.constant(number.reshape(-1).astype(np.int32)) for number in numbers]

    def zeros(k: KernelBuilder, index: Sequence[Expr]) -> Expr:
        _, channel, *place = index
        kind = [row.read(k, [0 if row.size == 1 else i]) for row, i in zip(rows, place, strict=True)]
        return table.read(k, [*kind, channel])

    return zeros


def _inside(axis: Axis) -> Array:
    """Which taps of every window are inside, `[output, kernel]`."""
    source = np.array([[axis.source(i, tap) for tap in range(axis.kernel)] for i in range(axis.output)])
    return (source >= 0) & (source < axis.input)


def _depthwise(convolution: Convolution, geometry: Geometry, terms: Sequence[Array], chunk: int) -> None:
    """A thread for a run of neighbouring channels of every pixel."""
    ctx, zero = convolution.ctx, convolution.zero or 0
    x = channels_last(ctx, convolution.input, chunk)
    by_taps = [ctx.constant_buffer(term.reshape(geometry.groups, -1).T) for term in terms]
    store, _ = convolution.result(whole_chunks(geometry.groups * geometry.filters, chunk))

    def read(k: KernelBuilder, index: Sequence[Expr]) -> Expr:
        return _input(k, geometry, x, index, zero)

    def weight(k: KernelBuilder, index: Sequence[Expr]) -> Expr:
        at = index[1] + index[0] * geometry.groups
        return reduce(add, (cast(k.load(term, at), SUM) for term in by_taps))

    with ctx.kernel("integer_depthwise") as k:
        emit_depthwise(k, geometry, 1, SUM, read, weight, store)


def _input(k: KernelBuilder, geometry: Geometry, x: Tensor, index: Sequence[Expr], zero: int) -> Expr:
    """The input at an index, without the zero point; zero where that is padding."""
    tests = [
        test
        for axis, i in zip(geometry.axes, index[2:], strict=True)
        if not axis.is_inside
        for test in (i >= 0, i < axis.input)
    ]

    def read() -> Expr:
        return cast(x.reader(k, index), SUM) - const(zero, SUM)

    return k.guard(tirx.op.all(*tests), read, const(0, SUM)) if tests else read()

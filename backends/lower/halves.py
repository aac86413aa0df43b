"""Convolutions and products of operands that were rounded to halves, by the instructions that multiply those.

The model says so in standard operators: Cast to bfloat16 or float16 and back stands before the left operand, and every weight is a float32
that the type holds. On other cores the same nodes are computed in float32, with equal results but for the order of summation and, in
float16, for sums of a few products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.backends.kernels.conv import pad_bias
from graphopt.backends.kernels.conv_shape import ConvShape, choose_tile, flatten_pointwise
from graphopt.backends.kernels.core import Core, HalfDot, NarrowSum
from graphopt.backends.kernels.gemm import Store
from graphopt.backends.kernels.narrow import Narrow, scale_of, wide_core
from graphopt.backends.kernels.narrow_conv import NarrowConvKernel
from graphopt.backends.kernels.narrow_gemm import NarrowGemmKernel
from graphopt.backends.kernels.pair_conv import PairConvKernel
from graphopt.backends.kernels.pair_gemm import PairGemmKernel
from graphopt.backends.kernels.pairs import Pairs
from graphopt.backends.kernels.units import in_units, pack_unit_filters
from graphopt.backends.lower.channels import channel_blocks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import BITS
from graphopt.backends.lower.pair_products import pair_product
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Halves:
    """The operands of a node: activations, and weights that are known, as kernels for `core` take them."""

    input: Tensor
    weights: Array
    arithmetic: Pairs | Narrow
    core: Core


def halves_of(ctx: Lowering, node: ir.Node, weights: Array | None, filters: int) -> Halves | None:
    """The operands of a node whose core multiplies halves, None where they were not rounded; `filters` is that axis of the weights."""
    value, half = node.inputs[0], ctx.core.half
    widened = None if value is None else value.producer()
    if half is None or weights is None or widened is None or widened.op_type != "Cast":
        return None
    source = widened.inputs[0]
    if source is None or source.dtype is None or weights.dtype != np.float32:
        return None
    if source.dtype.name.lower() != half.dtype or not holds(half.dtype, weights):
        return None
    return _OPERANDS[type(half)](ctx, source, weights, filters)


def holds(dtype: str, weights: Array) -> bool:
    """Whether weights are what rounding made of them."""
    with np.errstate(over="ignore"):
        return np.array_equal(weights.astype(np.dtype(dtype)).astype(np.float32), weights)


def _pairs(ctx: Lowering, source: ir.Value, weights: Array, filters: int) -> Halves:
    bits = weights.astype(ml_dtypes.bfloat16).view(BITS)
    return Halves(ctx.tensor(source), bits, Pairs.of(ctx.core), ctx.core)


def _narrow(ctx: Lowering, source: ir.Value, weights: Array, filters: int) -> Halves:
    half, core = ctx.core.half, wide_core(ctx.core)
    assert isinstance(half, NarrowSum)
    scale = scale_of(np.moveaxis(weights, filters, 0), half.terms)
    return Halves(
        ctx.tensor(source), (weights / scale).astype(np.float16), Narrow(half, core.lanes, scale), core
    )


_OPERANDS: dict[type[HalfDot | NarrowSum], Callable[[Lowering, ir.Value, Array, int], Halves]] = {
    HalfDot: _pairs,
    NarrowSum: _narrow,
}


def half_product(ctx: Lowering, halves: Halves) -> Callable[[Store], PairGemmKernel] | None:
    """The kernel of `input [rows..., k]` times `weights [k, n]`, None where rows are not whole units."""
    arithmetic = halves.arithmetic
    if halves.input.rank < 2 or halves.weights.ndim != 2 or halves.weights.shape[0] % arithmetic.unit:
        return None
    kernel = NarrowGemmKernel if isinstance(arithmetic, Narrow) else PairGemmKernel
    return pair_product(ctx, kernel, arithmetic, halves.core, halves.input, halves.weights)


def suits_pairs(shape: ConvShape, lanes: int) -> bool:
    """Whether each group starts on a whole block of channels, and the output can be blocked."""
    starts_a_block = shape.groups == 1 or shape.channels % lanes == 0
    return starts_a_block and shape.is_aligned(lanes)


def lower_half_conv(
    ctx: Lowering, node: ir.Node, halves: Halves, bias: Array | None, shape: ConvShape
) -> None:
    """Emit a convolution that `suits_pairs`; its weights have two spatial axes."""
    arithmetic, shape = halves.arithmetic, flatten_pointwise(shape)
    lanes, tile = halves.core.lanes, choose_tile(in_units(shape, arithmetic.unit), halves.core)
    source = channel_blocks(ctx, halves.input)
    after = epilogue(ctx, node, ctx.lanes)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, ctx.lanes))
    weights = pack_unit_filters(halves.weights, shape, tile, arithmetic, source.block)
    make: type[PairConvKernel] = NarrowConvKernel if isinstance(arithmetic, Narrow) else PairConvKernel
    kernel = make(
        shape,
        tile,
        halves.core,
        source,
        weights=ctx.constant_buffer(weights),
        bias=None if bias is None else ctx.constant_buffer(pad_bias(bias, shape, lanes)),
        store=after.into(out),
        pairs=arithmetic,
    )
    with ctx.kernel("half_conv") as k:
        kernel.emit(k)

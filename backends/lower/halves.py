"""Convolutions and products of operands that were rounded to bfloat16, by the instruction that multiplies pairs of them.

The model says so in standard operators: Cast to bfloat16 and back stands before the left operand, and every weight is a float32
that bfloat16 holds. On other cores the same nodes are computed in float32, with equal results but for the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.inline import PAIR
from graphopt.backends.kernels.conv import pad_bias
from graphopt.backends.kernels.conv_shape import ConvShape, choose_tile, flatten_pointwise
from graphopt.backends.kernels.gemm import Store
from graphopt.backends.kernels.pair_conv import PairConvKernel
from graphopt.backends.kernels.pair_gemm import PairGemmKernel
from graphopt.backends.kernels.pairs import Pairs
from graphopt.backends.kernels.units import in_units, pack_unit_filters
from graphopt.backends.lower.channels import channel_blocks
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import BITS, is_bfloat16
from graphopt.backends.lower.pair_products import pair_product
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.tensor import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Halves:
    """The operands of a node as bits: activations, and weights that are known."""

    input: Tensor
    weights: Array


def halves_of(ctx: Lowering, node: ir.Node, weights: Array | None) -> Halves | None:
    """The operands of a node whose core multiplies pairs, None where they were not rounded."""
    value = node.inputs[0]
    widened = None if value is None else value.producer()
    if ctx.core.half is None or weights is None or widened is None or widened.op_type != "Cast":
        return None
    source = widened.inputs[0]
    if source is None or not is_bfloat16(source) or weights.dtype != np.float32:
        return None
    rounded = weights.astype(ml_dtypes.bfloat16)
    if not np.array_equal(rounded.astype(np.float32), weights):
        return None
    return Halves(ctx.tensor(source), rounded.view(BITS))


def half_product(ctx: Lowering, halves: Halves) -> Callable[[Store], PairGemmKernel] | None:
    """The kernel of `input [rows..., k]` times `weights [k, n]`, None where rows are not whole pairs."""
    if halves.input.rank < 2 or halves.weights.ndim != 2 or halves.weights.shape[0] % PAIR:
        return None
    return pair_product(ctx, Pairs.of(ctx.core), halves.input, halves.weights)


def suits_pairs(shape: ConvShape, lanes: int) -> bool:
    """Whether each group starts on a whole block of channels, and the output can be blocked."""
    starts_a_block = shape.groups == 1 or shape.channels % lanes == 0
    return starts_a_block and shape.is_aligned(lanes)


def lower_half_conv(
    ctx: Lowering, node: ir.Node, halves: Halves, bias: Array | None, shape: ConvShape
) -> None:
    """Emit a convolution that `suits_pairs`; its weights have two spatial axes."""
    pairs, shape = Pairs.of(ctx.core), flatten_pointwise(shape)
    tile = choose_tile(in_units(shape, PAIR), ctx.core)
    source = channel_blocks(ctx, halves.input)
    after = epilogue(ctx, node, ctx.lanes)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype, ctx.lanes))
    kernel = PairConvKernel(
        shape,
        tile,
        ctx.core,
        source,
        weights=ctx.constant_buffer(pack_unit_filters(halves.weights, shape, tile, pairs, source.block)),
        bias=None if bias is None else ctx.constant_buffer(pad_bias(bias, shape, ctx.lanes)),
        store=after.into(out),
        pairs=pairs,
    )
    with ctx.kernel("half_conv") as k:
        kernel.emit(k)

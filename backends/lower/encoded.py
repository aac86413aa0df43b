"""Products with weights that are stored as integers: what they stand for never lies in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.encoded import EncodedPanels, pack_levels
from graphopt.backends.kernels.gemm import GemmKernel, Store, choose_tile
from graphopt.backends.kernels.panels import pack_panels, panel_count
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import attribute
from graphopt.backends.lower.views import reshape
from graphopt.backends.tensor import Tensor, constant, unravel
from graphopt.model import edit

Array = np.ndarray[Any, Any]

BYTES = ("int8", "uint8")
NIBBLES = ("int4", "uint4")
LEAST_COLUMNS = 3
"""Of a matrix that is worth it; fewer are read by dot products."""

SIGN = 8
"""What is added to signed nibbles."""


@dataclass(frozen=True)
class Encoded:
    """`(levels - zeros) * scales`: integers `[k, n]`, and float32 numbers `[ceil(k / size), n]`, each for a block of `size` rows."""

    levels: Array
    scales: Array
    zeros: Array
    size: int

    @property
    def nibbles(self) -> bool:
        """Whether all levels fit four bits."""
        return bool(self.levels.dtype == np.uint8 and self.levels.max(initial=0) < 16)

    def transposed(self) -> Encoded:
        """With rows as columns."""
        levels, scales, zeros = (
            np.ascontiguousarray(each.T) for each in (self.levels, self.scales, self.zeros)
        )
        return Encoded(levels, scales, zeros, self.size)


def encoded_weights(value: ir.Value | None, channels: int) -> Encoded | None:
    """The matrix behind a DequantizeLinear of constants whose output channels lie along axis `channels`; None for any other."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type != "DequantizeLinear":
        return None
    constants = [edit.constant(value) for value in node.inputs if value is not None]
    if any(array is None for array in constants):
        return None
    levels, scales, *zeros = (array for array in constants if array is not None)
    if levels.ndim != 2 or levels.dtype.name not in (*BYTES, *NIBBLES) or scales.dtype != np.float32:
        return None
    size, axis = attribute(node, "block_size", 0), attribute(node, "axis", 1) % 2
    if size and axis != channels:
        found = _encoded(levels, scales, zeros[0] if zeros else np.zeros_like(scales), size)
    elif not size and (axis == channels or scales.size == 1):
        rows = (_row(each, levels.shape, channels) for each in (scales, *zeros, np.zeros(1)))
        found = _encoded(levels, next(rows), next(rows), levels.shape[1 - channels])
    else:
        return None
    return found if channels == 1 else found.transposed()


def _row(parameter: Array, shape: Sequence[int], channels: int) -> Array:
    """One parameter for each output channel, as one block."""
    row = np.broadcast_to(parameter.reshape(-1), shape[channels])
    return row[None, :] if channels == 1 else row[:, None]


def _encoded(levels: Array, scales: Array, zeros: Array, size: int) -> Encoded:
    """With signed nibbles as unsigned ones."""
    shift = SIGN if levels.dtype.name == "int4" else 0
    kept = np.int8 if levels.dtype == np.int8 else np.uint8
    return Encoded(
        (levels.astype(np.int16) + shift).astype(kept), scales, zeros.astype(np.float32) + shift, size
    )


def is_worth_it(left: Tensor, right: Encoded) -> bool:
    """Whether a product of vectors of columns is made of them."""
    return left.dtype == "float32" and left.rank >= 2 and right.levels.shape[1] >= LEAST_COLUMNS


def encoded_product(ctx: Lowering, left: Tensor, right: Encoded) -> Callable[[Store], GemmKernel]:
    """The kernel of `left [..., k]` times the matrix, which lacks only what to do with the results."""
    depth, columns = right.levels.shape
    rows = left.shape[:-1]
    source = reshape(ctx.dense(left), (math.prod(rows), depth))
    tile = choose_tile(math.prod(rows), columns, depth, ctx.core)
    plain = len(right.scales) == 1 and not right.zeros.any()
    panels = _panels(ctx, right, tile.vectors, plain)

    def kernel(store: Store) -> GemmKernel:
        def restored(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
            scaled = value * scales.read(k, [index[1]]) if plain else value
            store(k, [*unravel(index[0], rows), index[1]], scaled)

        scales = constant(right.scales[0], lambda: ctx.constant_buffer(right.scales[0]))
        return GemmKernel(source, panels, (math.prod(rows), columns), tile, ctx.core, "float32", restored)

    return kernel


def _panels(ctx: Lowering, right: Encoded, vectors: int, plain: bool) -> EncodedPanels:
    def packed(numbers: Array) -> Any:
        return ctx.constant_buffer(pack_panels(numbers.astype(np.float32), vectors, ctx.lanes))

    offsets = -right.zeros * right.scales
    return EncodedPanels(
        ctx.constant_buffer(pack_levels(right.levels, right.nibbles, vectors, ctx.lanes)),
        (),
        panel_count(right.levels.shape[1], vectors, ctx.lanes),
        len(right.levels),
        vectors,
        ctx.lanes,
        nibbles=right.nibbles,
        scales=None if plain else packed(right.scales),
        offsets=None if plain or not offsets.any() else packed(offsets),
        size=right.size,
    )

"""Matrix products, by tiles of teams."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.product import TiledProduct
from graphopt.backends.cuda.tensor_elements import BYTES, Element, element_of, widened
from graphopt.backends.cuda.tensor_operands import (
    FEWEST_COLUMNS,
    has_chunks,
    right_operand,
    suits_tensor_cores,
)
from graphopt.backends.cuda.tensor_product import Operand, TensorProduct
from graphopt.backends.cuda.tensor_tiles import chip_of
from graphopt.backends.cuda.tiles import choose_tile
from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Strided
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.encoded import Encoded
from graphopt.backends.lower.matmul import Product
from graphopt.backends.lower.operands import stride_of
from graphopt.backends.lower.views import reshape, transpose
from graphopt.backends.schedules import tensor_product
from graphopt.backends.schedules.choice import is_candidate
from graphopt.backends.tensor import Tensor, broadcast_index, unravel


@dataclass(frozen=True)
class Nothing:
    """A product over no elements: every result is zero."""

    shape: Sequence[int]
    accumulator: str
    store: gemm.Store

    def emit(self, k: KernelBuilder) -> None:
        with k.loop(math.prod(self.shape), "independent", "result") as number:
            self.store(k, split_index(number, list(self.shape)), k.bind(const(0, self.accumulator)))


def tensor_product_of(
    ctx: Lowering, element: Element, left: Tensor, right: Tensor, batch: Sequence[int], extents: Extents
) -> Callable[[gemm.Store], TensorProduct]:
    """The kernel on tensor cores."""
    along_depth = has_chunks(right, -2, element.chunk)
    workload = tensor_product.workload(extents, element.size, along_depth)
    tile, parts = tensor_product.tile_of(ctx.schedule(workload, partial(is_candidate, workload, ctx.core)))
    return lambda store: TensorProduct(
        element,
        extents,
        tile,
        parts,
        _operand(left, batch, -2, -1),
        _operand(right, batch, -1, -2) if along_depth else _operand(right, batch, -1, -2, False),
        lambda k, number, row, column, value: store(
            k, [*split_index(number, list(batch)), row, column], value
        ),
        partial(ctx.buffer, dtype=element.sums.dtype),
    )


def _operand(
    tensor: Tensor, batch: Sequence[int], place_axis: int, depth_axis: int, along_depth: bool = True
) -> Operand:
    """A matrix in memory, whose places and depths are those axes."""
    storage = storage_of(tensor)
    layout = storage.layout
    assert isinstance(layout, Strided)
    strides = layout.strides

    def prepare(k: KernelBuilder, number: Expr, place: Expr) -> Expr:
        prefix = broadcast_index(split_index(number, list(batch)), tensor.shape[:-2])
        start = Strided((*strides[:-2], 0, 0), layout.offset).position([*prefix, 0, 0])
        return k.bind(start + place * strides[place_axis])

    def chunk(k: KernelBuilder, start: Expr, depth: Expr) -> tuple[Expr, None]:
        assert isinstance(k, DeviceBuilder)
        return k.address(storage.buffer, start + depth * strides[depth_axis]), None

    return Operand(prepare, chunk, along_depth)


def device_byte_product(
    ctx: Lowering, left: Tensor, right: np.ndarray[Any, Any]
) -> tuple[Callable[[gemm.Store], TensorProduct], int] | None:
    """The product of bytes `[rows..., depth]`, whose zero point is left to the caller, and a known matrix, on tensor cores."""
    units, (depth, columns) = BYTES.get(left.dtype), right.shape
    rows = left.shape[:-1]
    extents = Extents(1, math.prod(rows), columns, depth)
    if units is None or depth % units.chunk or columns < FEWEST_COLUMNS or not extents.results * depth:
        return None
    filters = ctx.strided(ctx.constant(np.ascontiguousarray(right.T.astype(np.int8))))
    source = reshape(ctx.dense(left), (extents.rows, depth))
    if not has_chunks(source, -1, units.chunk):
        source = ctx.store(source)
    make = tensor_product_of(ctx, units, source, transpose(filters, (1, 0)), (), extents)
    return lambda store: make(
        lambda k, index, value: store(k, [*unravel(index[0], rows), index[1]], value)
    ), 0


def decoded_product(
    ctx: Lowering, left: Tensor, right: Encoded
) -> Callable[[gemm.Store], TiledProduct | TensorProduct | Nothing]:
    """The product with a matrix of few bits, which is decoded at compile time."""
    depth = len(right.levels)
    scales, zeros = (np.repeat(each, right.size, axis=0)[:depth] for each in (right.scales, right.zeros))
    matrix = ctx.constant(((right.levels - zeros) * scales).astype(np.float32))
    rows = left.shape[:-1]
    product = Product(reshape(ctx.dense(left), (math.prod(rows), depth)), matrix)
    made = device_product(ctx, product, ctx.core, "float32")

    def kernel(store: gemm.Store) -> TiledProduct | TensorProduct | Nothing:
        return made(lambda k, index, value: store(k, [*unravel(index[0], rows), index[1]], value))

    return kernel


def device_product(
    ctx: Lowering, product: Product, core: Core, accumulator: str
) -> Callable[[gemm.Store], TiledProduct | TensorProduct | Nothing]:
    """The kernel of a product, whose operands are read where they lie."""
    left = ctx.strided(product.left)
    *batch, rows, columns = product.shape
    extents = Extents(math.prod(batch), rows, columns, left.shape[-1])
    if not extents.depth:
        return lambda store: Nothing(product.shape, accumulator, store)

    units = element_of(ctx, left.dtype, product.right.dtype)
    right = right_operand(ctx, core, units, left, product.right, extents)
    if units is not None and suits_tensor_cores(units, left, right, extents):
        return tensor_product_of(ctx, units, left, right, batch, extents)

    def element(tensor: Tensor, number: Expr, index: Sequence[Expr], k: KernelBuilder) -> Expr:
        prefix = broadcast_index(split_index(number, batch), tensor.shape[:-2])
        return widened(tensor.reader(k, [*prefix, *index]), accumulator)

    def make(store: gemm.Store) -> TiledProduct:
        tile, parts = choose_tile(chip_of(core), extents, np.dtype(accumulator).itemsize)
        return TiledProduct(
            extents,
            tile,
            parts,
            accumulator,
            lambda k, number, row, depth: element(left, number, [row, depth], k),
            lambda k, number, column, depth: element(right, number, [depth, column], k),
            lambda k, number, row, column, value: store(k, [*split_index(number, batch), row, column], value),
            partial(ctx.buffer, dtype=accumulator),
            stride_of(left, -2) != 1 or rows == 1,
            stride_of(right, -1) != 1 and columns > 1,
        )

    return make

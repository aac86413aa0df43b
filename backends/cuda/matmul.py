"""Matrix products, by tiles of teams."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.half_product import CHUNK, HalfProduct, choose_half_tile
from graphopt.backends.cuda.product import Extents, TiledProduct
from graphopt.backends.cuda.tiles import choose_tile
from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Strided
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.encoded import Encoded
from graphopt.backends.lower.matmul import Product
from graphopt.backends.lower.operands import stride_of
from graphopt.backends.lower.views import reshape
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


def suits_tensor_cores(left: Tensor, right: Tensor, extents: Extents) -> bool:
    """Whether chunks of both operands, which are halves, can be copied as they lie: along the depth, the right one also along
    columns."""
    if (left.dtype, right.dtype) != ("float16", "float16") or min(extents.rows, extents.columns) < CHUNK:
        return False
    if extents.depth % CHUNK:
        return False
    along_columns = extents.columns % CHUNK == 0 and has_chunks(right, -1)
    return has_chunks(left, -1) and (along_columns or has_chunks(right, -2))


def has_chunks(tensor: Tensor, axis: int) -> bool:
    """Whether elements along an axis are neighbours, and every row of them starts at a whole chunk."""
    layout = storage_of(tensor).layout
    assert isinstance(layout, Strided)
    strides = list(layout.strides)
    along = strides.pop(axis)
    return along == 1 and not any(stride % CHUNK for stride in [*strides, layout.offset])


def half_product_of(
    left: Tensor, right: Tensor, batch: Sequence[int], extents: Extents
) -> Callable[[gemm.Store], HalfProduct]:
    """The kernel on tensor cores."""
    along_depth = not (extents.columns % CHUNK == 0 and has_chunks(right, -1))

    def address(tensor: Tensor, number: Expr, index: Sequence[Expr], k: KernelBuilder) -> Expr:
        assert isinstance(k, DeviceBuilder)
        prefix = broadcast_index(split_index(number, list(batch)), tensor.shape[:-2])
        storage = storage_of(tensor)
        return k.address(storage.buffer, storage.layout.position([*prefix, *index]))

    return lambda store: HalfProduct(
        extents,
        choose_half_tile(extents),
        lambda k, number, row, depth: address(left, number, [row, depth], k),
        lambda k, number, column, depth: address(right, number, [depth, column], k),
        along_depth,
        lambda k, number, row, column, value: store(
            k, [*split_index(number, list(batch)), row, column], value
        ),
    )


def decoded_product(
    ctx: Lowering, left: Tensor, right: Encoded
) -> Callable[[gemm.Store], TiledProduct | HalfProduct | Nothing]:
    """The product with a matrix of few bits, which is decoded at compile time."""
    depth = len(right.levels)
    scales, zeros = (np.repeat(each, right.size, axis=0)[:depth] for each in (right.scales, right.zeros))
    matrix = ctx.constant(((right.levels - zeros) * scales).astype(np.float32))
    rows = left.shape[:-1]
    product = Product(reshape(ctx.dense(left), (math.prod(rows), depth)), matrix)
    made = device_product(ctx, product, ctx.core, "float32")

    def kernel(store: gemm.Store) -> TiledProduct | HalfProduct | Nothing:
        return made(lambda k, index, value: store(k, [*unravel(index[0], rows), index[1]], value))

    return kernel


def device_product(
    ctx: Lowering, product: Product, core: Core, accumulator: str
) -> Callable[[gemm.Store], TiledProduct | HalfProduct | Nothing]:
    """The kernel of a product, whose operands are read where they lie."""
    left, right = ctx.strided(product.left), ctx.strided(product.right)
    *batch, rows, columns = product.shape
    extents = Extents(math.prod(batch), rows, columns, left.shape[-1])
    if not extents.depth:
        return lambda store: Nothing(product.shape, accumulator, store)

    if suits_tensor_cores(left, right, extents):
        return half_product_of(left, right, batch, extents)

    def element(tensor: Tensor, number: Expr, index: Sequence[Expr], k: KernelBuilder) -> Expr:
        prefix = broadcast_index(split_index(number, batch), tensor.shape[:-2])
        return cast(tensor.reader(k, [*prefix, *index]), accumulator)

    def make(store: gemm.Store) -> TiledProduct:
        tile = choose_tile(extents.batch, rows, columns, extents.depth)
        return TiledProduct(
            extents,
            tile,
            accumulator,
            lambda k, number, row, depth: element(left, number, [row, depth], k),
            lambda k, number, column, depth: element(right, number, [depth, column], k),
            lambda k, number, row, column, value: store(k, [*split_index(number, batch), row, column], value),
            partial(ctx.buffer, dtype=accumulator),
            stride_of(left, -2) != 1 or rows == 1,
            stride_of(right, -1) != 1 and columns > 1,
        )

    return make

"""Matrix products, by tiles of teams."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.cuda.product import Extents, TiledProduct
from graphopt.backends.cuda.tiles import choose_tile
from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.window import split_index
from graphopt.backends.lower.context import Lowering
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


def decoded_product(
    ctx: Lowering, left: Tensor, right: Encoded
) -> Callable[[gemm.Store], TiledProduct | Nothing]:
    """The product with a matrix of few bits, which is decoded at compile time."""
    depth = len(right.levels)
    scales, zeros = (np.repeat(each, right.size, axis=0)[:depth] for each in (right.scales, right.zeros))
    matrix = ctx.constant(((right.levels - zeros) * scales).astype(np.float32))
    rows = left.shape[:-1]
    product = Product(reshape(ctx.dense(left), (math.prod(rows), depth)), matrix)
    made = device_product(ctx, product, ctx.core, "float32")

    def kernel(store: gemm.Store) -> TiledProduct | Nothing:
        return made(lambda k, index, value: store(k, [*unravel(index[0], rows), index[1]], value))

    return kernel


def device_product(
    ctx: Lowering, product: Product, core: Core, accumulator: str
) -> Callable[[gemm.Store], TiledProduct | Nothing]:
    """The kernel of a product, whose operands are read where they lie."""
    left, right = ctx.strided(product.left), ctx.strided(product.right)
    *batch, rows, columns = product.shape
    extents = Extents(math.prod(batch), rows, columns, left.shape[-1])
    if not extents.depth:
        return lambda store: Nothing(product.shape, accumulator, store)

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

"""MatMul and Gemm: brings the operands into the form a multiplication kernel reads, and chooses the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.dot import DotKernel
from graphopt.backends.kernels.gemm import GemmKernel
from graphopt.backends.kernels.kept import panel_sections, share_kept
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.encoded import encoded_product, encoded_weights, is_worth_it
from graphopt.backends.lower.fused_attention import find_attention, lower_attention
from graphopt.backends.lower.halves import half_product, halves_of
from graphopt.backends.lower.lookup import count_values, lookup_product
from graphopt.backends.lower.operands import along_depth, columns_of, stride_of, transposed, with_shape
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute
from graphopt.backends.lower.pointwise import epilogue
from graphopt.backends.lower.sparse import sparse_product
from graphopt.backends.lower.views import reshape, transpose
from graphopt.backends.schedules import lookup, sparse
from graphopt.backends.schedules.gemm import tile_of, workload
from graphopt.backends.schedules.lookup import looks_up
from graphopt.backends.schedules.sparse import is_sparse
from graphopt.backends.schedules.workload import Config
from graphopt.backends.tensor import Tensor, broadcast_index, unravel

FEW = 2
"""Columns of a result up to which a product is computed by dot products rather than by vectors of columns."""

Finish = Callable[[KernelBuilder, Sequence[Expr], Expr], Expr]
"""What becomes of an element of the product, given its index in the node's output: scaling, bias."""


@dataclass(frozen=True)
class Product:
    """`left [batch..., m, k]` times `right [batch..., k, n]`; `restore` maps an index to one of the node's output."""

    left: Tensor
    right: Tensor
    restore: Callable[[Sequence[Expr]], Sequence[Expr]] = tuple

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])
        return (*batch, self.left.shape[-2], self.right.shape[-1])


def lower_matmul(ctx: Lowering, node: ir.Node) -> None:
    """MatMul by numpy's rules: one-dimensional operands gain an axis, leading axes broadcast."""
    left, right = (operand for operand in ctx.operands(node) if operand is not None)
    if min(left.rank, right.rank) == 0:
        raise Refused("MatMul of a scalar")
    if (attention := find_attention(ctx, node, left, right)) is not None:
        lower_attention(ctx, attention)
        return
    encoded = encoded_weights(node.inputs[1], channels=1)
    if encoded is not None and is_worth_it(left, encoded):
        emit_product(ctx, node, ctx.twin(encoded_product)(ctx, left, encoded), lambda k, index, value: value)
        return
    if (kernel := _half_product(ctx, node, right)) is not None:
        emit_product(ctx, node, kernel, lambda k, index, value: value)
        return
    row, column = left.rank == 1, right.rank == 1

    def restore(index: Sequence[Expr]) -> Sequence[Expr]:
        *batch, y, x = index
        return [*batch, *([] if row else [y]), *([] if column else [x])]

    left = with_shape(ctx, left, (1, *left.shape)) if row else left
    right = with_shape(ctx, right, (*right.shape, 1)) if column else right
    multiply(
        ctx, node, Product(left, right, restore if row or column else tuple), lambda k, index, value: value
    )


def lower_gemm(ctx: Lowering, node: ir.Node) -> None:
    """Gemm: `alpha * A' * B' + beta * C`, where C broadcasts to the result."""
    left, right, *rest = ctx.operands(node)
    assert left is not None
    assert right is not None
    is_transposed = bool(attribute(node, "transA", 0))
    left = transpose(left, (1, 0)) if is_transposed else left
    right = transposed(ctx, right) if attribute(node, "transB", 0) else right
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    addend = rest[0] if rest and rest[0] is not None and beta != 0 else None
    if addend is not None:
        addend = ctx.strided(addend)
    finish = _scaled_sum(addend, alpha, beta)
    encoded = encoded_weights(node.inputs[1], channels=0 if attribute(node, "transB", 0) else 1)
    if encoded is not None and is_worth_it(left, encoded):
        emit_product(ctx, node, ctx.twin(encoded_product)(ctx, left, encoded), finish)
        return
    kernel = None if is_transposed else _half_product(ctx, node, right)
    emit_product(ctx, node, kernel or product_kernel(ctx, Product(left, right)), finish)


def _half_product(ctx: Lowering, node: ir.Node, right: Tensor) -> Callable[[gemm.Store], GemmKernel] | None:
    """The kernel of halves, where the node's operands are halves and the result has columns enough."""
    halves = halves_of(ctx, node, right.constant, filters=-1)
    return None if halves is None or right.shape[-1] <= FEW else half_product(ctx, halves)


def _scaled_sum(addend: Tensor | None, alpha: float, beta: float) -> Finish:
    def finish(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> Expr:
        dtype = str(value.ty.dtype)
        value = value if alpha == 1 else _scaled(value, alpha)
        if addend is None:
            return value
        term = cast(addend.read(k, broadcast_index(index, addend.shape)), dtype)
        return value + (term if beta == 1 else _scaled(term, beta))

    return finish


def _scaled(value: Expr, factor: float) -> Expr:
    """`value * factor`; integers are scaled as floats and truncated."""
    dtype = str(value.ty.dtype)
    if dtype.startswith("float"):
        return value * const(factor, dtype)
    return cast(cast(value, "float64") * const(factor, "float64"), dtype)


def multiply(ctx: Lowering, node: ir.Node, product: Product, finish: Finish) -> None:
    """Emit the kernel of a product, `finish` and the elementwise operators that follow."""
    emit_product(ctx, node, product_kernel(ctx, product), finish)


def emit_product(
    ctx: Lowering, node: ir.Node, kernel: Callable[[gemm.Store], GemmKernel | DotKernel], finish: Finish
) -> None:
    """The same of a kernel that lacks only what to do with the results."""
    after = epilogue(ctx, node)
    out = storage_of(ctx.result(after.value, after.shape, after.result.dtype))

    def store(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
        after.store(k, out, index, cast(finish(k, index, value), after.dtype))

    with ctx.kernel("gemm") as k:
        if after.hole.size:
            kernel(store).emit(k)


def product_kernel(ctx: Lowering, product: Product) -> Callable[[gemm.Store], GemmKernel | DotKernel]:
    """The kernel of a product whose operands are then ready in memory; it lacks only what to do with the results."""
    product = _merge_rows(ctx, replace(product, left=ctx.strided(product.left)))
    accumulator = accumulator_of(product.left.dtype)
    lanes = max(ctx.lanes * 4 // np.dtype(accumulator).itemsize, 1)
    kernel = ctx.twin(kernel_of)(ctx, product, replace(ctx.core, lanes=lanes), accumulator)
    return lambda store: kernel(lambda k, index, value: store(k, product.restore(index), value))


def kernel_of(
    ctx: Lowering, product: Product, core: Core, accumulator: str
) -> Callable[[gemm.Store], GemmKernel | DotKernel]:
    """The kernel that suits the shape of a product and the strides of its operands."""
    left, right, shape, lanes = product.left, product.right, product.shape, core.lanes
    if shape[-1] <= FEW:
        left, right = along_depth(ctx, left, -1), along_depth(ctx, right, -2)
        return lambda store: DotKernel(left, right, shape, lanes, accumulator, store)
    if shape[-2] <= FEW and stride_of(right, -2) == 1 and stride_of(right, -1) != 1:
        left = along_depth(ctx, left, -1)
        return lambda store: DotKernel(left, right, shape, lanes, accumulator, store)
    config = _schedule(ctx, product, accumulator)
    if config is not None and looks_up(config):
        assert right.constant is not None
        return lookup_product(ctx, left, right.constant, tile_of(config))
    if config is not None and is_sparse(config):
        assert right.constant is not None
        return sparse_product(ctx, left, panel_sections(right.constant, lanes), shape, tile_of(config))
    m, n = shape[-2:]
    tile = gemm.choose_tile(m, n, left.shape[-1], core) if config is None else tile_of(config)
    operand = columns_of(ctx, right, tile.vectors, lanes)
    return lambda store: GemmKernel(left, operand, shape, tile, core, accumulator, store)


def _schedule(ctx: Lowering, product: Product, accumulator: str) -> Config | None:
    """The schedule of a float32 product that is not empty, None for any other."""
    *batch, m, n = product.shape
    depth, constant = product.left.shape[-1], product.right.constant
    if accumulator != "float32" or not math.prod((*product.shape, depth)):
        return None
    packed = stride_of(product.right, -1) != 1 or constant is not None
    special: dict[str, int] = {}
    if constant is not None and len(product.shape) == 2:
        special |= sparse.fact(share_kept(constant, partial(panel_sections, lanes=ctx.lanes)))
        special |= lookup.fact(m, count_values(constant, 2 * ctx.lanes), ctx.core)
    return ctx.schedule(workload(math.prod(batch), m, n, depth, packed, special))


def _merge_rows(ctx: Lowering, product: Product) -> Product:
    """Leading axes of the left operand joined to its rows where the right operand is one matrix for all of them."""
    left, right = product.left, product.right
    batch, restore = left.shape[:-2], product.restore
    if not batch or any(extent != 1 for extent in right.shape[:-2]) or right.rank > left.rank:
        return product
    rows = left.shape[:-1]
    left = reshape(ctx.dense(left), (int(np.prod(rows)), left.shape[-1]))
    right = with_shape(ctx, right, right.shape[-2:])
    return Product(left, right, lambda index: restore([*unravel(index[0], rows), index[1]]))


OPERATORS: dict[str, Operator] = {
    "Gemm": Anchor(lower_gemm),
    "MatMul": Anchor(lower_matmul),
}

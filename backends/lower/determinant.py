"""Det, by Gaussian elimination with partial pivoting."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, cast, const
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import row_major_strides
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor


def lower_det(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    """Det of square matrices `[batch..., m, m]`."""
    x = ctx.in_memory(first_input(ctx, node))
    accumulator = accumulator_of(x.dtype)
    batch, extent = x.shape[:-2], x.shape[-1]
    out = ctx.result(node.outputs[0], batch, x.dtype)
    scratch = ctx.new((*batch, extent, extent), accumulator)
    target = storage_of(out)
    with ctx.kernel("determinant") as k, k.loop(out.size, "serial", "matrix") as which:
        prefix = split_index(which, batch)
        matrix = _Matrix(scratch, prefix)
        with k.loop(extent, "serial", "i") as i, k.loop(extent, "serial", "j") as j:
            matrix.store(k, i, j, cast(x.reader(k, [*prefix, i, j]), accumulator))
        value = _eliminate(k, matrix, extent, accumulator)
        k.store(target.buffer, target.layout.position(prefix), cast(value, x.dtype))
    return [out]


class _Matrix:
    """A matrix in scratch memory that the kernel reads and writes."""

    def __init__(self, scratch: Tensor, prefix: Sequence[Expr]) -> None:
        self.storage = storage_of(scratch)
        strides = row_major_strides(scratch.shape)
        self.start = sum((i * s for i, s in zip(prefix, strides, strict=False)), start=const(0, "int32"))
        self.columns = scratch.shape[-1]

    def load(self, k: KernelBuilder, row: Expr, column: Expr) -> Expr:
        return k.load(self.storage.buffer, self.start + row * self.columns + column)

    def store(self, k: KernelBuilder, row: Expr, column: Expr, value: Expr) -> None:
        k.store(self.storage.buffer, self.start + row * self.columns + column, value)


def _eliminate(k: KernelBuilder, matrix: _Matrix, extent: int, dtype: str) -> Expr:
    """Bring the matrix into triangular form; gives the determinant."""
    product, pivot, factor = k.local(1, dtype), k.local(1, "int32"), k.local(1, dtype)
    k.assign(product, 0, const(1, dtype))
    with k.loop(extent, "serial", "step") as step:
        k.assign(pivot, 0, step)
        with k.loop(extent - step, "serial", "row") as row:
            larger = tirx.op.abs(matrix.load(k, step + row, step)) > tirx.op.abs(
                matrix.load(k, pivot[0], step)
            )
            with k.when(larger):
                k.assign(pivot, 0, step + row)
        with k.when(tirx.NE(pivot[0], step)):
            k.assign(product, 0, -product[0])
            _swap(k, matrix, step, pivot[0], extent, factor)
        k.assign(product, 0, product[0] * matrix.load(k, step, step))
        with (
            k.when(tirx.NE(matrix.load(k, step, step), const(0, dtype))),
            k.loop(extent - step - 1, "serial", "row") as below,
        ):
            row = step + 1 + below
            k.assign(factor, 0, matrix.load(k, row, step) / matrix.load(k, step, step))
            with k.loop(extent, "serial", "column") as column:
                matrix.store(
                    k, row, column, matrix.load(k, row, column) - factor[0] * matrix.load(k, step, column)
                )
    return product[0]


def _swap(k: KernelBuilder, matrix: _Matrix, first: Expr, second: Expr, extent: int, spare: Local) -> None:
    """Exchange two rows."""
    with k.loop(extent, "serial", "column") as column:
        k.assign(spare, 0, matrix.load(k, first, column))
        matrix.store(k, first, column, matrix.load(k, second, column))
        matrix.store(k, second, column, spare[0])


OPERATORS: dict[str, Operator] = {"Det": Lowered(lower_det)}

"""The kernels for products of bytes, by the arithmetic of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphopt.backends.kernels.gemm import GemmKernel
from graphopt.backends.kernels.octet_gemm import OctetGemmKernel, emit_row_pairs, packed_shape
from graphopt.backends.kernels.octets import Octets
from graphopt.backends.kernels.quad_gemm import QuadGemmKernel
from graphopt.backends.kernels.quads import Quads
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.tensor import Tensor


@dataclass(frozen=True)
class ByteProduct:
    """A kernel, and what brings its left operand `[m, k]`, dense, into the order in which it is read."""

    kernel: Callable[..., GemmKernel]
    prepare: Callable[[Lowering, Tensor], Tensor]


def _in_row_pairs(ctx: Lowering, left: Tensor) -> Tensor:
    rows, depth = left.shape
    packed = ctx.new(packed_shape(rows, depth), left.dtype)
    with ctx.kernel("to_octets") as k:
        emit_row_pairs(k, left, storage_of(packed))
    return packed


BYTE_PRODUCTS: Mapping[type[Quads | Octets], ByteProduct] = {
    Quads: ByteProduct(QuadGemmKernel, lambda ctx, left: left),
    Octets: ByteProduct(OctetGemmKernel, _in_row_pairs),
}

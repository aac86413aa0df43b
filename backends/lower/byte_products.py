"""How the left operands of products of bytes are read, by the arithmetic of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphopt.backends.kernels.octet_gemm import emit_row_pairs, packed_shape
from graphopt.backends.kernels.octets import Octets
from graphopt.backends.kernels.quads import Quads
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.tensor import Tensor


def _in_row_pairs(ctx: Lowering, left: Tensor) -> Tensor:
    rows, depth = left.shape
    packed = ctx.new(packed_shape(rows, depth), left.dtype)
    with ctx.kernel("to_octets") as k:
        emit_row_pairs(k, left, storage_of(packed))
    return packed


PREPARE: Mapping[type[Quads | Octets], Callable[[Lowering, Tensor], Tensor]] = {
    Quads: lambda ctx, left: left,
    Octets: _in_row_pairs,
}
"""What brings a left operand `[m, k]`, dense, into the order in which it is read."""

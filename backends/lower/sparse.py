"""Weights of which whole vectors are zero, as kernels read them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.gemm import GemmTile, Store
from graphopt.backends.kernels.kept import Array, Listed, pack_kept
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.sparse_gemm import SparseGemmKernel
from graphopt.backends.lower.context import Lowering
from graphopt.backends.tensor import Tensor


def listed(ctx: Lowering, sections: Array) -> tuple[Listed, Buffer]:
    """The lists and the values of the vectors of `[sections, rows, lanes]` that are not zero; of one where all are."""
    packed = pack_kept(sections)
    lists = Listed(ctx.constant_buffer(packed.starts), ctx.constant_buffer(_not_empty(packed.rows)))
    return lists, ctx.constant_buffer(_not_empty(packed.values.reshape(-1)))


def sparse_product(
    ctx: Lowering, left: Tensor, sections: Array, shape: tuple[int, ...], tile: GemmTile
) -> Callable[[Store], SparseGemmKernel]:
    """The kernel of `left [m, k]` times the panels `[panels, k, lanes]`, which lacks only what to do with the results."""
    kept, values = listed(ctx, sections)
    count, depth, lanes = sections.shape
    panels = Panels(values, (), count, depth, 1, lanes)
    return lambda store: SparseGemmKernel(left, panels, shape, tile, ctx.core, "float32", store, kept=kept)


def _not_empty(array: Array) -> Array:
    return array if array.size else np.zeros(1, array.dtype)

"""Products whose left operand is read pair by pair, and whose right one is packed at compile time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import Store, choose_tile
from graphopt.backends.kernels.narrow import Narrow
from graphopt.backends.kernels.pair_gemm import PairGemmKernel
from graphopt.backends.kernels.pairs import Pairs
from graphopt.backends.kernels.panels import Panels, panel_count
from graphopt.backends.kernels.units import pack_unit_panels
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.views import reshape
from graphopt.backends.tensor import Tensor, unravel


def pair_product(
    ctx: Lowering,
    family: type[PairGemmKernel],
    pairs: Pairs | Narrow,
    core: Core,
    left: Tensor,
    right: np.ndarray[Any, Any],
) -> Callable[[Store], PairGemmKernel]:
    """The kernel of `left [rows..., k]` times `right [k, n]`, k a multiple of a pair's elements; it lacks only what to do with
    the results, whose indices are `[rows..., n]`."""
    rows, (depth, columns) = left.shape[:-1], right.shape
    source = reshape(ctx.dense(left), (math.prod(rows), depth))
    tile = choose_tile(math.prod(rows), columns, depth // pairs.unit, core)
    packed = ctx.constant_buffer(pack_unit_panels(right, tile.vectors, pairs))
    count = panel_count(columns, tile.vectors, core.lanes)
    panels = Panels(packed, (), count, depth // pairs.unit, tile.vectors, pairs.step)
    shape = (math.prod(rows), columns)

    def kernel(store: Store) -> PairGemmKernel:
        def restored(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
            store(k, [*unravel(index[0], rows), index[1]], value)

        return family(source, panels, shape, tile, core, pairs.sums, restored, pairs=pairs)

    return kernel

"""Weights of few values, as kernels look them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphopt.backends.kernels.gemm import GemmKernel, GemmTile, Store
from graphopt.backends.kernels.lookup import LookupPanels, code_bits, pack_codes
from graphopt.backends.kernels.panels import panel_count
from graphopt.backends.lower.context import Lowering
from graphopt.backends.tensor import Tensor

Array = np.ndarray[Any, Any]

SAMPLE = 4096
"""Weights from which it is mostly seen that they have many values."""


def count_values(weights: Array, most: int) -> int | None:
    """How many different weights there are; None for more than `most`."""
    flat = weights.reshape(-1)
    if len(np.unique(flat[:SAMPLE])) > most:
        return None
    found = len(np.unique(flat))
    return found if found <= most else None


def lookup_product(
    ctx: Lowering, left: Tensor, weights: Array, tile: GemmTile
) -> Callable[[Store], GemmKernel]:
    """The kernel of `left [m, k]` times float32 `weights [k, n]`, which lacks only what to do with the results."""
    depth, columns = weights.shape
    values, codes = np.unique(weights, return_inverse=True)
    bits, lookup = code_bits(len(values), ctx.lanes), ctx.core.lookup
    assert bits is not None
    assert lookup is not None
    book = np.resize(values, ctx.lanes if len(values) <= ctx.lanes else 2 * ctx.lanes)
    panels = LookupPanels(
        ctx.constant_buffer(pack_codes(codes.reshape(weights.shape).astype(np.uint8), bits, ctx.lanes)),
        (),
        panel_count(columns, tile.vectors, ctx.lanes),
        depth,
        tile.vectors,
        ctx.lanes,
        book=ctx.constant_buffer(book),
        bits=bits,
        lookup=lookup,
    )
    shape = left.shape[-2], columns
    return lambda store: GemmKernel(left, panels, shape, tile, ctx.core, "float32", store)

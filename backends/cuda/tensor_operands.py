"""Operands of products on tensor cores: which are copied in chunks as they lie, and which are turned first.

Groups of warps, and tf32 on all of them, multiply a right operand whose chunks lie along the depth. One whose columns are neighbours is
turned where that pays: at once where it is computed anyway, by a copy where the product takes that much less time.
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.backends.cuda import tensor_tiles, tiles
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_elements import Element
from graphopt.backends.cuda.tensor_tiles import chip_of, copy_cycles
from graphopt.backends.kernels.core import Core
from graphopt.backends.layout import Strided
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.views import strided_layout, transpose
from graphopt.backends.tensor import Tensor

FEWEST_COLUMNS = 8
"""Of one instruction."""

TRANSPOSABLE = 2
"""Bytes of elements that are transposed on their way from shared memory."""

BY_COLUMNS = "by columns"
"""The form of copies of which columns lie one after the other."""


def suits_tensor_cores(element: Element, left: Tensor, right: Tensor, extents: Extents) -> bool:
    """Whether chunks of both operands can be copied as they lie: along the depth, halves of the right one also along columns."""
    return _copies_chunks(element, left, extents) and (
        has_chunks(right, -2, element.chunk)
        or (_columns_suit(element, extents) and has_chunks(right, -1, element.chunk))
    )


def has_chunks(tensor: Tensor, axis: int, chunk: int) -> bool:
    """Whether elements along an axis are neighbours, and every row of them starts at a whole chunk."""
    layout = storage_of(tensor).layout
    assert isinstance(layout, Strided)
    strides = list(layout.strides)
    along = strides.pop(axis)
    return along == 1 and not any(stride % chunk for stride in [*strides, layout.offset])


def right_operand(
    ctx: Lowering, core: Core, element: Element | None, left: Tensor, source: Tensor, extents: Extents
) -> Tensor:
    """`source`, `[..., depth, columns]`, in memory as the product with `left` reads it fastest."""
    if element is None or not _copies_chunks(element, left, extents):
        return ctx.strided(source)
    if source.constant is not None:
        columns = np.ascontiguousarray(source.constant.swapaxes(-1, -2))
        return _turned(ctx.strided(ctx.constant(columns)))
    if strided_layout(source) is not None and has_chunks(source, -2, element.chunk):
        return source
    if _pays(core, element, source, extents):
        return ctx.kept(source, BY_COLUMNS, lambda: _turned(ctx.store(_turned(source))))
    return ctx.strided(source)


def _copies_chunks(element: Element, left: Tensor, extents: Extents) -> bool:
    """Whether there are whole chunks along the depth, which the left operand has together, and columns enough."""
    chunk = element.chunk
    return extents.columns >= FEWEST_COLUMNS and extents.depth % chunk == 0 and has_chunks(left, -1, chunk)


def _columns_suit(element: Element, extents: Extents) -> bool:
    """Whether columns that are neighbours are whole chunks, which are transposed on their way."""
    return element.size == TRANSPOSABLE and extents.columns % element.chunk == 0


def _turned(tensor: Tensor) -> Tensor:
    """Rows as columns."""
    *outer, row, column = range(tensor.rank)
    return transpose(tensor, (*outer, column, row))


def _pays(core: Core, element: Element, source: Tensor, extents: Extents) -> bool:
    """Whether the product and what turns its operand take less time than the product alone."""
    size, is_stored = element.size, strided_layout(source) is not None
    by_warps = _columns_suit(element, extents) and (not is_stored or has_chunks(source, -1, element.chunk))
    before = (
        tensor_tiles.shortest_cycles(chip_of(core, False), extents, size)
        if by_warps
        else tiles.shortest_cycles(chip_of(core), extents)
    )
    after = tensor_tiles.shortest_cycles(chip_of(core), extents, size)
    if is_stored:
        after += copy_cycles(chip_of(core), math.prod(source.shape) * size)
    return after < before

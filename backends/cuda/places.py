"""Indices of tensors whose axes threads count in groups, each of which is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphopt.backends.codegen.builder import Expr
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.tensor import unravel

Groups = tuple[tuple[int, ...], ...]
"""Extents of the axes in memory, in groups of neighbours."""

Element = Callable[[DeviceBuilder, list[Expr]], None]
"""Computes and stores one element, given its index in memory."""


def index(k: DeviceBuilder, groups: Groups, flat: Sequence[Expr]) -> list[Expr]:
    """The index in memory at a place of every group."""
    found: list[Expr] = []
    for group, position in zip(groups, flat, strict=True):
        parts = [named(k, i) for i in unravel(position, group)]
        k.know_flat(parts, group, position)
        found += parts
    return found


def named(k: DeviceBuilder, i: Expr) -> Expr:
    """A number that may be used twice."""
    return i if isinstance(i, int) else k.bind(i)

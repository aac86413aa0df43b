"""The extents of products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr


@dataclass(frozen=True)
class Extents:
    """`batch` products of `rows x depth` and `depth x columns`."""

    batch: int
    rows: int
    columns: int
    depth: int

    @property
    def results(self) -> int:
        return self.batch * self.rows * self.columns


def inside(limits: Sequence[tuple[Expr, int, int]]) -> Expr | None:
    """Whether positions are below their extents; None where they always are, as extents are whole tiles."""
    tests = [position < extent for position, extent, tile in limits if extent % tile]
    return tirx.op.all(*tests) if tests else None

"""What sliding-window kernels (convolution, pooling) share: their geometry and how an output row splits into tiles.

No padding is ever stored. Rows of the window that fall outside are skipped by the bounds of a loop; columns that fall
outside are known when the code of a border tile is generated, and left out of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.geometry import Axis, Tiles


@dataclass(frozen=True)
class Window:
    """Geometry of a two-dimensional window; every pair is (height, width). `pads` are those at the beginning."""

    input: tuple[int, int]
    output: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]
    dilations: tuple[int, int]

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The vertical and the horizontal axis."""
        pairs = zip(
            self.input, self.output, self.kernel, self.strides, self.pads, self.dilations, strict=True
        )
        vertical, horizontal = (Axis(*values) for values in pairs)
        return vertical, horizontal

    @property
    def is_pointwise(self) -> bool:
        """Whether output pixel i reads input pixel i and nothing else."""
        return all(axis.is_pointwise for axis in self.axes)

    def flattened(self) -> Window:
        """The same pointwise window over one long row."""
        row = (1, math.prod(self.input))
        return Window(row, row, (1, 1), (1, 1), (0, 0), (1, 1))

    def column(self, x: Expr, tap: Expr) -> Expr:
        """Input column that output column `x` reads through column `tap` of the window."""
        return x * self.strides[1] + tap * self.dilations[1] - self.pads[1]

    def row(self, y: Expr, tap: Expr) -> Expr:
        """Input row that output row `y` reads through row `tap` of the window."""
        return y * self.strides[0] + tap * self.dilations[0] - self.pads[0]

    def tiles(self, rows: int, columns: int) -> tuple[list[Tiles], list[Tiles]]:
        """Runs of tiles along both axes. Single rows are one run, whose taps are found at run time."""
        vertical, horizontal = self.axes
        of_rows = [Tiles(0, 1, self.output[0], False)] if rows == 1 else vertical.tiles(rows)
        return of_rows, horizontal.tiles(columns)

    def row_range(self, y: Expr) -> tuple[Expr, Expr]:
        """First tap, and number of taps, whose input rows exist for output row `y`."""
        return self.axes[0].taps(y)


def for_each_tile(
    k: KernelBuilder, tiles: Sequence[Tiles], index: Expr, emit: Callable[[Tiles, Expr], None]
) -> None:
    """Emit the code of tile number `index` of a row; `emit` gets the tile and its first column."""

    def case(first: int, run: Tiles) -> Callable[[], None]:
        if run.repeat == 1:
            return lambda: emit(run, run.start)
        return lambda: emit(run, run.start + (index - first) * run.width)

    cases: list[tuple[Expr, Callable[[], None]]] = []
    first = 0
    for run in tiles:
        cases.append((index < first + run.repeat, case(first, run)))
        first += run.repeat
    _, otherwise = cases.pop()
    k.switch(cases, otherwise)


def tile_count(tiles: Sequence[Tiles]) -> int:
    """How many tiles a row has."""
    return sum(run.repeat for run in tiles)


def split_index(unit: Expr, extents: Sequence[int]) -> list[Expr]:
    """The row-major index of flat `unit` within `extents`."""
    indices: list[Expr] = []
    for extent in reversed(extents):
        indices.append(0 if extent <= 1 else tirx.op.floormod(unit, extent))
        unit = unit if extent <= 1 else tirx.op.floordiv(unit, extent)
    return indices[::-1]

"""How threads share out a tensor: each has a run of neighbours in memory, which it stores with one access.

Operands whose elements are neighbours too are read with one access. Where they are not, because a tensor is transposed on the way,
threads go through the result in tiles, so that neighbouring threads read neighbours. Runs are as long as 16 bytes hold, shorter
where extents are no multiples or too few threads would be left, and single elements where nothing else can be stored as it lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr
from graphopt.backends.cuda import places
from graphopt.backends.cuda.accesses import LARGEST
from graphopt.backends.cuda.builder import WARP, DeviceBuilder
from graphopt.backends.cuda.lanes import Lanes
from graphopt.backends.cuda.places import Element, Groups
from graphopt.backends.cuda.staging import Staged, staged
from graphopt.backends.tensor import unravel

LEAST = 8192
"""Threads below which runs become shorter: 64 for each multiprocessor."""

DEEP = 8
"""Runs of a tile, of 32 places along the axis that is read as it lies: rows of 128 bytes are stored by neighbouring warps."""


@dataclass(frozen=True)
class Runs:
    """`groups` of axes in memory that are one each, runs of `width` along the last. Neighbouring threads have neighbouring runs, or
    neighbours along the group `across`."""

    groups: Groups
    width: int
    across: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Runs along every group."""
        *outer, inner = map(math.prod, self.groups)
        return (*outer, inner // self.width)

    def store(self, k: DeviceBuilder, element: Element) -> None:
        """Let every thread compute its run."""
        if 0 in self.shape:
            return
        with k.loop(math.prod(self._space), "independent", "run") as number:
            unit, exists = self._unit(k, number)
            with k.when(exists), k.lanes(self.width) as lane:
                element(k, self.index(k, unit, lane))

    def index(self, k: DeviceBuilder, unit: Sequence[Expr], lane: Expr) -> list[Expr]:
        """The index in memory of a lane of a run."""
        *outer, run = unit
        flat = [*outer, run * self.width + lane if self.width > 1 else run]
        return places.index(k, self.groups, flat)

    @property
    def _tile(self) -> tuple[int, int]:
        """Runs and neighbours of a tile of threads."""
        assert self.across is not None
        return min(self.shape[-1], DEEP), min(self.shape[self.across], WARP)

    @property
    def _space(self) -> list[int]:
        """The extents of what threads are counted in: runs, or tiles and what is in them."""
        shape = self.shape
        if self.across is None:
            return list(shape)
        rest = [1 if axis in (self.across, len(shape) - 1) else extent for axis, extent in enumerate(shape)]
        depth, side = self._tile
        return [*rest, -(-shape[-1] // depth), -(-shape[self.across] // side), depth, side]

    def _unit(self, k: DeviceBuilder, number: Expr) -> tuple[list[Expr], Expr]:
        """The place of a run along every group, and whether it exists."""
        shape, unit = self.shape, unravel(number, self._space)
        if self.across is None:
            return [places.named(k, i) for i in unit], True
        *unit, block, beside, depth, place = unit
        sizes = dict(zip((len(shape) - 1, self.across), self._tile, strict=True))
        unit[-1], unit[self.across] = (
            block * sizes[len(shape) - 1] + depth,
            beside * sizes[self.across] + place,
        )
        unit = [places.named(k, i) for i in unit]
        tests = [unit[axis] < shape[axis] for axis, size in sizes.items() if shape[axis] % size]
        return unit, tirx.op.all(*tests) if tests else True


def choose_runs(k: DeviceBuilder, shape: Sequence[int], size: int, element: Element) -> Runs | Staged:
    """The longest runs of a tensor that lies as `shape` of elements of `size` bytes that are stored as they lie; of equally long
    ones those of which fewest operands are read one by one. Where they lie elsewhere, or some operand does, tiles of shared memory."""
    for width in widths(math.prod(shape), size):
        best: tuple[int, Runs] | None = None
        for runs in _candidates(shape, width):
            tried = _try(k, runs, element)
            if tried is None:
                continue
            count = len(tried[0].scattered)
            if best is None or count < best[0]:
                best = count, runs
        if best is not None:
            return _across(k, best[1], size, element) if best[0] else best[1]
    return _stored_elsewhere(k, shape, size, element) or Runs((tuple(shape),), 1)


def _stored_elsewhere(k: DeviceBuilder, shape: Sequence[int], size: int, element: Element) -> Staged | None:
    """Tiles of results that lie along another axis than the last one of `shape`."""
    groups: Groups = tuple((extent,) for extent in shape)
    every = list(widths(math.prod(shape), size))
    found: Staged | None = None
    for across in reversed(range(len(groups) - 1)):
        found = staged(k, groups, len(groups) - 1, across, every, element, LEAST)
        if found is not None:
            break
    while found is not None and found.across:
        at, groups = found.across - 1, found.groups
        joined = (*groups[:at], groups[at] + groups[at + 1], *groups[at + 2 :])
        longer = staged(k, joined, len(joined) - 1, at, every, element, LEAST)
        if longer is None:
            break
        found = longer
    return found


def widths(elements: int, size: int) -> Iterator[int]:
    """Lengths of runs of elements of `size` bytes, the longest first, that leave enough threads."""
    width = LARGEST // size
    while width > 1:
        if elements >= LEAST * width:
            yield width
        width //= 2


def _candidates(shape: Sequence[int], width: int) -> Iterator[Runs]:
    """Runs along the last axis, or along as many as are needed for whole ones, or along all of them."""
    rank = len(shape)
    whole = [at for at in reversed(range(rank)) if math.prod(shape[at:]) % width == 0]
    for at in dict.fromkeys([*whole[:1], *whole[-1:]]):
        yield _grouped(shape, at, width)


def _grouped(shape: Sequence[int], first: int, width: int) -> Runs:
    """Runs along the axes from `first` on."""
    return Runs((*((extent,) for extent in shape[:first]), tuple(shape[first:])), width)


def _try(k: DeviceBuilder, runs: Runs, element: Element) -> tuple[Lanes, list[Expr]] | None:
    """What becomes of the elements of a run at such a unit; None where they cannot be stored together."""
    unit = [0 if extent == 1 else k.variable("unit", extent) for extent in runs.shape]
    lanes = k.rehearse(runs.width, lambda lane: element(k, runs.index(k, unit, lane)))
    return None if lanes is None or lanes.scattered_writes else (lanes, unit)


def _across(k: DeviceBuilder, runs: Runs, size: int, element: Element) -> Runs | Staged:
    """The same runs, with neighbouring threads along what is read as it lies, where anything is. Axes are joined as long as it is. Tiles
    of shared memory where all that is read lies along that axis."""
    axis = _contiguous(k, runs, element)
    if runs.shape[-1] == 1 or axis is None:
        return runs
    boundary = len(runs.groups) - 1
    while boundary > 0:
        groups = runs.groups
        joined = (*groups[: boundary - 1], groups[boundary - 1] + groups[boundary], *groups[boundary + 1 :])
        longer = Runs(joined, runs.width)
        found = _contiguous(k, longer, element)
        if found is not None:
            runs, axis = longer, found
        boundary -= 1
    every = list(widths(math.prod(map(math.prod, runs.groups)), size))
    tiles = staged(k, runs.groups, axis, len(runs.groups) - 1, every, element, LEAST)
    return tiles or Runs(runs.groups, runs.width, axis)


def _contiguous(k: DeviceBuilder, runs: Runs, element: Element) -> int | None:
    """The group, other than that of the runs, whose neighbours are neighbours in an operand that is read element by element."""
    tried = _try(k, runs, element)
    if tried is None:
        return None
    lanes, unit = tried
    for _, offset in lanes.scattered:
        for axis, place in enumerate(unit[:-1]):
            if not isinstance(place, int) and lanes.step(offset, place) == 1:
                return axis
    return None

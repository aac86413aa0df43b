"""How many cycles the innermost step of a register-tiled multiplication takes, by a small model of the core.

A step multiplies every vector of weights by every scalar of the other operand. It is bound by the multiply-adds, by the loads of
vectors and scalars from the first-level cache, by the vectors alone, which come from the second level, or by the front end, which issues
them all. What these take is a row of `speed.py`; other constants are fitted to measurements on Zen 5, and hold well enough elsewhere to
rank tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphopt.backends.kernels.core import Core, Scalars

OVERHEAD, PER_LOAD = 3, 1.5
"""Operations of the loop around a step, and of a load: a pair of them counts as three."""

STEP = 0.3
"""Cycles of the loop around a step that nothing hides."""

TILE = 30.0
"""Cycles to start and to finish a tile."""

WEIGHT = 0.5
"""Cycles of one core to bring a weight from memory, while all cores do so."""


@dataclass(frozen=True)
class Supply:
    """What it takes to get the scalars of a step to its multiply-adds, given how many there are and the lanes of a vector."""

    loads: Callable[[int, int], float]
    moves: Callable[[int, int], float]
    """Instructions besides, which take the place of multiply-adds."""
    registers: Callable[[int, int, int], int]
    """Registers besides those of the sums, given the vectors as well."""
    together: int = 1
    """Scalars that cost as much as one."""
    weights: int = 1
    """Loads of a vector of weights."""
    most: int | None = None
    """Scalars of a tile."""

    def products(self, vectors: int, scalars: int) -> int:
        """Vectors of sums, and multiply-adds of a step."""
        return vectors * -(-scalars // self.together) * self.together


MOST_LOW = 8
"""Registers with scalars where instructions reach 16 of them, and LLVM loads those of the next steps early."""


def _runs(scalars: int, lanes: int) -> int:
    return -(-scalars // lanes)


SUPPLIES: Mapping[Scalars, Supply] = {
    Scalars.BROADCAST: Supply(
        loads=lambda scalars, lanes: scalars,
        moves=lambda scalars, lanes: 0,
        registers=lambda vectors, scalars, lanes: min(vectors, scalars) + 1,
    ),
    Scalars.LANES: Supply(
        loads=lambda scalars, lanes: scalars / lanes,
        moves=lambda scalars, lanes: 0,
        registers=lambda vectors, scalars, lanes: scalars + 2 * vectors + 2,
    ),
    Scalars.LOW_LANES: Supply(
        loads=lambda scalars, lanes: 2 * scalars / lanes,
        moves=lambda scalars, lanes: 0,
        registers=lambda vectors, scalars, lanes: scalars + 2 * vectors + 4,
        most=MOST_LOW,
    ),
    Scalars.RUNS: Supply(
        loads=_runs,
        moves=_runs,
        registers=lambda vectors, scalars, lanes: _runs(scalars, lanes) + vectors + 1,
    ),
    Scalars.PAIRS: Supply(
        loads=lambda scalars, lanes: _runs(scalars, 2),
        moves=lambda scalars, lanes: _runs(scalars, 2),
        registers=lambda vectors, scalars, lanes: scalars + 4,
        together=2,
        weights=2,
    ),
    Scalars.PACKED: Supply(
        loads=lambda scalars, lanes: _runs(scalars, 2),
        moves=lambda scalars, lanes: 0,
        registers=lambda vectors, scalars, lanes: _runs(scalars, 2) + 3,
        together=2,
        weights=2,
    ),
}
"""Lanes serve several steps, whose vectors LLVM loads early. Runs of bytes may have to change their signs."""


def step_cycles(vectors: int, scalars: int, depth: int, core: Core) -> float:
    """Cycles of one of `depth` steps of a tile, those of its start and end shared out among them."""
    speed, supply = core.speed, SUPPLIES[core.scalars]
    multiplies = supply.products(vectors, scalars) + supply.moves(scalars, core.lanes)
    weights = vectors * supply.weights
    loads = weights + supply.loads(scalars, core.lanes)
    multiplying, loading = speed.multiply * multiplies, speed.load * loads
    bound = max(
        multiplying + loading if speed.in_order else max(multiplying, loading),
        speed.far_load * weights,
        speed.latency if vectors else 0.0,
        speed.operation * (multiplies + PER_LOAD * loads + OVERHEAD),
    )
    return bound + STEP + TILE / max(depth, 1)


def fits(vectors: int, scalars: int, core: Core) -> bool:
    """Whether a tile's sums stay in registers next to what one step loads, and to the scalars of several steps."""
    supply = SUPPLIES[core.scalars]
    if supply.most is not None and scalars > supply.most:
        return False
    rest = supply.registers(vectors, scalars, core.lanes)
    return supply.products(vectors, scalars) + rest <= core.registers


def axis_cycles(extent: int, tile: int, cycles_of: Callable[[int], float]) -> float:
    """Cycles along an axis cut into tiles, the last of which may be smaller."""
    full, rest = divmod(extent, tile)
    return full * cycles_of(tile) + (cycles_of(rest) if rest else 0.0)


def weights_cycles(count: int) -> float:
    """Cycles to bring weights from memory, where those of a whole model mostly are."""
    return WEIGHT * count

"""Products of few rows with weights of few values, which are looked up in registers: a candidate more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import GemmKernel, GemmTile
from graphopt.backends.kernels.lookup import (
    FEW_ROWS,
    NARROW,
    VECTORS,
    LookupPanels,
    code_bits,
    lookup_cycles,
    lookup_tiles,
)
from graphopt.backends.kernels.panels import panel_count
from graphopt.backends.layout import dense
from graphopt.backends.schedules.standalone import Standalone, whole
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import stored

LOOKUP = "lookup"

FACT = "code"
"""Of a workload: bits of the codes of its weights. It is absent where these have many values, or rows are many."""


def fact(rows: int, values: int | None, core: Core) -> Mapping[str, int]:
    """The fact of a product of so many rows, whose weights have so many values, None for any number."""
    bits = None if values is None or core.lookup is None else code_bits(values, core.lanes)
    return {} if bits is None or rows > FEW_ROWS else {FACT: bits}


def bits_of(workload: Workload) -> int | None:
    """None where weights are not looked up."""
    return dict(workload.facts).get(FACT)


def looks_up(config: Config) -> bool:
    """Whether a schedule looks weights up."""
    return config.get("algorithm") == LOOKUP


def candidates(workload: Workload, core: Core) -> Iterator[tuple[float, Config]]:
    """Estimated cycles and schedules."""
    bits = bits_of(workload)
    if bits is None or core.lookup is None:
        return
    m, n, depth = (workload[name] for name in "mnk")
    for tile in lookup_tiles(m):
        cycles = lookup_cycles(m, n, depth, bits, tile, core)
        yield cycles, {"algorithm": LOOKUP, "rows": tile.rows, "vectors": tile.vectors}


def standalone(workload: Workload, tile: GemmTile, core: Core) -> Standalone:
    """A program of the kernel alone, followed by a Relu."""
    bits, lanes = workload[FACT], core.lanes
    rows, columns, depth = (workload[name] for name in "mnk")
    m, n = whole(rows, tile.rows), whole(columns, VECTORS * lanes)
    program = Standalone(
        lookup_cycles(m, n, depth, bits, tile, core) / lookup_cycles(rows, columns, depth, bits, tile, core)
    )
    left = stored(program.input(m * depth), (m, depth))
    count = panel_count(n, VECTORS, lanes)
    codes = program.constant(count * depth * VECTORS * lanes * bits // 8, "uint8")
    book = program.constant(lanes if bits == NARROW else 2 * lanes, "float32")
    assert core.lookup is not None
    right = LookupPanels(codes, (), count, depth, VECTORS, lanes, book=book, bits=bits, lookup=core.lookup)
    out = dense((m, n))
    store = program.relu(program.output(m * n), out)
    program.emit(GemmKernel(left, right, (m, n), tile, core, "float32", store).emit)
    return program

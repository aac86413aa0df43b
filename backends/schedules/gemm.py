"""Schedules of float32 products: the register tile, and whether vectors of zeros are skipped, or few values looked up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import GemmKernel, GemmTile, gemm_cycles, tiles_that_fit
from graphopt.backends.kernels.panels import Panels, panel_count
from graphopt.backends.kernels.tile_cost import weights_cycles
from graphopt.backends.layout import dense
from graphopt.backends.schedules import lookup, sparse
from graphopt.backends.schedules.standalone import Standalone, whole
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import Tensor, stored

FAMILY = "gemm"


def workload(
    batch: int, m: int, n: int, k: int, packed: bool, special: Mapping[str, int] | None = None
) -> Workload:
    """`[batch, m, k]` by `[batch, k, n]`, the right operand packed into panels or read in place; facts of `sparse` and `lookup` are
    `special`."""
    facts = {"batch": batch, "m": m, "n": n, "k": k, "packed": int(packed)}
    return Workload.of(FAMILY, {**facts, **(special or {})})


@cache
def candidates(workload: Workload, core: Core) -> list[tuple[float, Config]]:
    """Estimated cycles and schedule, the fastest first; those to bring weights where candidates differ in them."""
    m, n, k = (workload[name] for name in "mnk")
    differ = sparse.per_cent_of(workload) is not None or lookup.bits_of(workload) is not None
    brought = weights_cycles(n * k) if differ else 0.0
    found: list[tuple[float, Config]] = [
        (gemm_cycles(m, n, k, tile, core) + brought, {"rows": tile.rows, "vectors": tile.vectors})
        for tile in tiles_that_fit(m, n, core)
    ]
    found += sparse.gemm_candidates(workload, core)
    found += lookup.candidates(workload, core)
    return sorted(found, key=lambda candidate: candidate[0])


def tile_of(config: Config) -> GemmTile:
    """The register tile of a schedule."""
    return GemmTile(int(config["rows"]), int(config["vectors"]))


def standalone(workload: Workload, config: Config, core: Core) -> Standalone:
    """A program of the kernel alone, followed by a Relu."""
    lanes, tile = core.lanes, tile_of(config)
    if sparse.is_sparse(config):
        return sparse.gemm_standalone(workload, tile, core)
    if lookup.looks_up(config):
        return lookup.standalone(workload, tile, core)
    batch, rows, columns, k = (workload[name] for name in ("batch", "m", "n", "k"))
    m, n = whole(rows, tile.rows), whole(columns, tile.vectors * lanes)
    program = Standalone(gemm_cycles(m, n, k, tile, core) / gemm_cycles(rows, columns, k, tile, core))
    left = stored(program.input(batch * m * k), (batch, m, k))
    right: Tensor | Panels = stored(program.input(batch * k * n), (batch, k, n))
    if workload["packed"]:
        count = panel_count(n, tile.vectors, lanes)
        weights = program.constant(batch * count * k * tile.vectors * lanes, "float32")
        right = Panels(weights, (batch,), count, k, tile.vectors, lanes)
    out = dense((batch, m, n))
    store = program.relu(program.output(batch * m * n), out)
    program.emit(GemmKernel(left, right, (batch, m, n), tile, core, "float32", store).emit)
    return program

"""Schedules of products of bytes: the register tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from math import prod

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.byte_arithmetic import byte_arithmetic, products_core
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import GemmKernel, GemmTile, gemm_cycles, tiles_that_fit
from graphopt.backends.kernels.octet_gemm import OctetGemmKernel, packed_shape
from graphopt.backends.kernels.octets import Octets
from graphopt.backends.kernels.panels import Panels, panel_count
from graphopt.backends.kernels.quad_gemm import QuadGemmKernel
from graphopt.backends.kernels.quads import Quads
from graphopt.backends.kernels.tile_cost import SUPPLIES
from graphopt.backends.layout import Strided, dense
from graphopt.backends.schedules.standalone import Standalone, whole
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import Index, stored

FAMILY = "bytegemm"

KERNELS: Mapping[type[Quads | Octets], Callable[..., GemmKernel]] = {
    Quads: QuadGemmKernel,
    Octets: OctetGemmKernel,
}


def workload(m: int, n: int, k: int, dtype: str) -> Workload:
    """`[m, k]` of a dtype by `[k, n]` int8, which is packed."""
    return Workload.of(FAMILY, {"m": m, "n": n, "k": k, "signed": int(dtype == "int8")})


@cache
def candidates(workload: Workload, core: Core) -> list[tuple[float, Config]]:
    """Estimated cycles and schedule, the fastest first; any for an empty product."""
    m, n, seen, steps = workload["m"], workload["n"], products_core(core), _steps(workload, core)
    found: dict[GemmTile, float] = {}
    for tile in tiles_that_fit(m, n, seen):
        cycles, taken = gemm_cycles(m, n, steps, tile, seen), _rows_together(tile, core)
        found[taken] = min(cycles, found.get(taken, cycles))
    ordered = sorted(found.items(), key=lambda item: item[1]) or [(GemmTile(1, 1), 0.0)]
    return [(cycles, {"rows": tile.rows, "vectors": tile.vectors}) for tile, cycles in ordered]


def _rows_together(tile: GemmTile, core: Core) -> GemmTile:
    """With as many rows as the instruction takes, or a multiple of that."""
    return replace(tile, rows=SUPPLIES[products_core(core).scalars].products(1, tile.rows))


def _steps(workload: Workload, core: Core) -> int:
    return -(-workload["k"] // byte_arithmetic(core, _dtype(workload)).unit)


def _dtype(workload: Workload) -> str:
    return "int8" if workload["signed"] else "uint8"


def tile_of(config: Config) -> GemmTile:
    """The register tile of a schedule."""
    return GemmTile(int(config["rows"]), int(config["vectors"]))


def standalone(workload: Workload, config: Config, core: Core) -> Standalone:
    """A program of the kernel alone, whose sums become floats."""
    arithmetic, tile, steps = byte_arithmetic(core, _dtype(workload)), tile_of(config), _steps(workload, core)
    rows, columns, k = (workload[name] for name in "mnk")
    m, n = whole(rows, tile.rows), whole(columns, tile.vectors * core.lanes)
    seen = products_core(core)
    program = Standalone(gemm_cycles(m, n, steps, tile, seen) / gemm_cycles(rows, columns, steps, tile, seen))
    shape = packed_shape(m, k) if isinstance(arithmetic, Octets) else (m, k)
    left = stored(program.input(prod(shape), _dtype(workload)), shape)
    count = panel_count(n, tile.vectors, core.lanes)
    weights = program.constant(count * steps * tile.vectors * arithmetic.step, arithmetic.weights_dtype)
    right = Panels(weights, (), count, steps, tile.vectors, arithmetic.step)
    store = _as_floats(program.output(m * n), dense((m, n)))
    kernel = KERNELS[type(arithmetic)](left, right, (m, n), tile, core, "int32", store, arithmetic=arithmetic)
    program.emit(kernel.emit)
    return program


def _as_floats(out: Buffer, layout: Strided) -> Callable[[KernelBuilder, Index, Expr], None]:
    def store(k: KernelBuilder, index: Index, value: Expr) -> None:
        k.store(out, layout.position(index), cast(value, "float32"))

    return store

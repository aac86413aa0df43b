"""What the families of convolutions and products have in common where whole vectors of the weights are zero: a candidate more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.gemm import GemmTile
from graphopt.backends.kernels.kept import Spaced, kept_rows
from graphopt.backends.kernels.panels import Panels
from graphopt.backends.kernels.sparse_conv import SparseConvKernel, sparse_conv_cycles
from graphopt.backends.kernels.sparse_conv import sparse_tiles as conv_tiles
from graphopt.backends.kernels.sparse_gemm import SparseGemmKernel, sparse_gemm_cycles
from graphopt.backends.kernels.sparse_gemm import sparse_tiles as gemm_tiles
from graphopt.backends.layout import Blocked, Layout, dense
from graphopt.backends.schedules.standalone import Standalone, whole
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import stored

SPARSE = "sparse"

FACT = "kept"
"""Of a workload: how many in a hundred vectors of the weights are stored. It is absent where nearly all are."""

MOST_KEPT = 90


def fact(share: float) -> Mapping[str, int]:
    """The fact of weights of whose vectors a share is not zero."""
    per_cent = kept_rows(100, round(100 * share))
    return {FACT: per_cent} if per_cent <= MOST_KEPT else {}


def per_cent_of(workload: Workload) -> int | None:
    """None where nearly all vectors are stored."""
    return dict(workload.facts).get(FACT)


def is_sparse(config: Config) -> bool:
    """Whether a schedule skips vectors of zeros."""
    return config.get("algorithm") == SPARSE


def gemm_candidates(workload: Workload, core: Core) -> Iterator[tuple[float, Config]]:
    """Estimated cycles and schedules of a product."""
    per_cent = per_cent_of(workload)
    if per_cent is None:
        return
    m, n, depth = (workload[name] for name in "mnk")
    for tile in gemm_tiles(m, core):
        cycles = sparse_gemm_cycles(m, n, depth, per_cent, tile, core)
        yield cycles, {"algorithm": SPARSE, "rows": tile.rows, "vectors": tile.vectors}


def conv_candidates(workload: Workload, shape: ConvShape, core: Core) -> Iterator[tuple[float, Config]]:
    """Estimated cycles and schedules of a convolution."""
    per_cent = per_cent_of(workload)
    if per_cent is None:
        return
    for tile in conv_tiles(shape, core):
        cycles = sparse_conv_cycles(shape, per_cent, tile, core)
        yield cycles, {"algorithm": SPARSE, "columns": tile.columns, "rows": tile.rows}


def conv_tile(config: Config) -> ConvTile:
    """The register tile of a schedule of a convolution."""
    return ConvTile(1, int(config["columns"]), int(config["rows"]))


def gemm_standalone(workload: Workload, tile: GemmTile, core: Core) -> Standalone:
    """A program of the kernel alone, followed by a Relu."""
    per_cent, lanes = workload[FACT], core.lanes
    rows, columns, depth = (workload[name] for name in "mnk")
    m, n = whole(rows, tile.rows), whole(columns, lanes)
    program = Standalone(
        sparse_gemm_cycles(m, n, depth, per_cent, tile, core)
        / sparse_gemm_cycles(rows, columns, depth, per_cent, tile, core)
    )
    kept, panels = kept_rows(depth, per_cent), -(-n // lanes)
    left = stored(program.input(m * depth), (m, depth))
    weights = program.constant(panels * kept * lanes, "float32")
    right = Panels(weights, (), panels, kept, 1, lanes)
    out = dense((m, n))
    store = program.relu(program.output(m * n), out)
    skipped = Spaced(kept, depth)
    program.emit(SparseGemmKernel(left, right, (m, n), tile, core, "float32", store, kept=skipped).emit)
    return program


def conv_standalone(
    workload: Workload, shape: ConvShape, entire: ConvShape, config: Config, core: Core
) -> Standalone:
    """The same of the part `shape` of an `entire` convolution without borders."""
    per_cent, lanes, tile = workload[FACT], core.lanes, conv_tile(config)
    program = Standalone(
        sparse_conv_cycles(shape, per_cent, tile, core) / sparse_conv_cycles(entire, per_cent, tile, core)
    )
    inside = (shape.batch, shape.groups * shape.channels, *shape.window.input)
    outside = (shape.batch, shape.groups * shape.filters, *shape.window.output)
    layout: Layout = Blocked(inside, lanes) if workload["blocked"] else dense(inside)
    source = stored(program.input(layout.size(inside)), inside, layout)
    out = Blocked(outside, lanes)
    store = program.relu(program.output(out.size(outside)), out)
    kept = kept_rows(shape.channels, per_cent)
    sections = shape.groups * -(-shape.filters // lanes) * prod(shape.window.kernel)
    weights = program.constant(sections * kept * lanes, "float32")
    skipped = Spaced(kept, shape.channels)
    program.emit(SparseConvKernel(shape, tile, core, source, weights, None, store, kept=skipped).emit)
    return program

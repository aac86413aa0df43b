"""Schedules of convolutions of bytes: the register tile of the kernel that multiplies them, or of the one that multiplies what they
stand for as floats, which wins where the instructions for bytes are mostly empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.byte_arithmetic import byte_arithmetic, convolutions_core
from graphopt.backends.kernels.byte_conv import ByteConvKernel
from graphopt.backends.kernels.conv import ConvKernel
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile, direct_cycles, tiles_that_fit
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.octet_conv import OctetConvKernel
from graphopt.backends.kernels.octets import Octets
from graphopt.backends.kernels.quad_conv import QuadConvKernel
from graphopt.backends.kernels.quads import Quads
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.units import in_units
from graphopt.backends.layout import Blocked, Layout, dense
from graphopt.backends.schedules.conv import facts_of, shape_of, whole_tiles, without_borders
from graphopt.backends.schedules.standalone import Standalone
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import Index, stored

FAMILY = "byteconv"
BYTES, FLOATS = "bytes", "floats"

CONVERSION = 0.5
"""Cycles that an element takes to become a float, and to be written and read as one."""

PARALLEL_ELEMENTS = 16384
"""Elements below which converting them stays on one thread."""

SCALE = 1e-3
"""Of results, whose size does not matter."""

KERNELS: Mapping[type[Quads | Octets], Callable[..., ByteConvKernel]] = {
    Quads: QuadConvKernel,
    Octets: OctetConvKernel,
}


def workload(shape: ConvShape, dtype: str, shifted: bool, block: int) -> Workload:
    """Of activations of a dtype in channel blocks; `shifted` are weights whose zero point keeps them from being int8."""
    facts = {**facts_of(shape), "signed": int(dtype == "int8"), "shifted": int(shifted), "block": block}
    return Workload.of(FAMILY, facts)


@cache
def candidates(workload: Workload, core: Core) -> list[tuple[float, Config]]:
    """Estimated cycles and schedule, the fastest first; any for an empty convolution."""
    found = [*_on_bytes(workload, core), *_on_floats(workload, core)]
    return sorted(found, key=lambda candidate: candidate[0]) or [(0.0, _config(BYTES, ConvTile(1, 1)))]


def _on_bytes(workload: Workload, core: Core) -> Iterator[tuple[float, Config]]:
    shape, seen = _in_units(workload, core), _as_bytes(workload, core)
    for tile in tiles_that_fit(shape, seen):
        yield direct_cycles(shape, tile, seen), _config(BYTES, tile)


def _on_floats(workload: Workload, core: Core) -> Iterator[tuple[float, Config]]:
    shape = shape_of(workload)
    elements = shape.batch * shape.groups * shape.channels * shape.window.input[0] * shape.window.input[1]
    for tile in tiles_that_fit(shape, core):
        yield direct_cycles(shape, tile, core) + CONVERSION * elements, _config(FLOATS, tile)


def _config(algorithm: str, tile: ConvTile) -> Config:
    return {"algorithm": algorithm, "blocks": tile.blocks, "columns": tile.columns, "rows": tile.rows}


def _in_units(workload: Workload, core: Core) -> ConvShape:
    return in_units(shape_of(workload), byte_arithmetic(core, _dtype(workload)).unit)


def _as_bytes(workload: Workload, core: Core) -> Core:
    """The core as tiles see it: sums of inputs take registers too."""
    registers = core.registers * 3 // 4 if workload["shifted"] else core.registers
    return replace(convolutions_core(core), registers=registers)


def _dtype(workload: Workload) -> str:
    return "int8" if workload["signed"] else "uint8"


def is_float(config: Config) -> bool:
    """Whether a schedule multiplies floats."""
    return config["algorithm"] == FLOATS


def tile_of(config: Config) -> ConvTile:
    """The register tile of a schedule."""
    return ConvTile(int(config["blocks"]), int(config["columns"]), int(config["rows"]))


def standalone(workload: Workload, config: Config, core: Core) -> Standalone:
    """A program of the kernel alone, whose sums are scaled and rounded; without borders, whose code takes long to compile."""
    entire, tile = without_borders(shape_of(workload), 1), tile_of(config)
    shape = whole_tiles(entire, tile, core)
    program = Standalone(direct_cycles(shape, tile, core) / direct_cycles(entire, tile, core))
    inside = (shape.batch, shape.groups * shape.channels, *shape.window.input)
    outside = (shape.batch, shape.groups * shape.filters, *shape.window.output)
    in_rows = is_float(config) and workload["block"] != core.lanes
    layout: Layout = dense(inside) if in_rows else Blocked(inside, workload["block"])
    out = Blocked(outside, core.lanes)
    source = program.input(layout.size(inside), _dtype(workload))
    store = _rounding(program.output(out.size(outside), "uint8"), out)
    vectors = shape.groups * -(-shape.filters // core.lanes)
    if is_float(config):
        floats = program.temporary(source.size)
        program.emit(lambda k: _convert(k, source, floats, core.lanes))
        weights = program.constant(vectors * core.lanes * shape.depth, "float32")
        program.emit(ConvKernel(shape, tile, core, stored(floats, inside, layout), weights, None, store).emit)
        return program
    arithmetic = byte_arithmetic(core, source.dtype)
    size = vectors * arithmetic.step * in_units(shape, arithmetic.unit).depth
    weights = program.constant(size, arithmetic.weights_dtype)
    shifts = program.constant(vectors * core.lanes, "int32") if workload["shifted"] else None
    kernel = KERNELS[type(arithmetic)](
        shape,
        tile,
        core,
        stored(source, inside, layout),
        weights,
        None,
        store,
        taps=None,
        shifts=shifts,
        arithmetic=arithmetic,
    )
    program.emit(kernel.emit)
    return program


def _rounding(out: Buffer, layout: Blocked) -> Callable[[KernelBuilder, Index, Expr], None]:
    """Stores a sum as a byte."""

    def store(k: KernelBuilder, index: Index, value: Expr) -> None:
        scaled = cast(value, "float32") * const(SCALE, "float32")
        k.store(out, layout.position(index), cast(cast(scaled, "int32"), "uint8"))

    return store


def _convert(k: KernelBuilder, source: Buffer, floats: Buffer, lanes: int) -> None:
    """Bytes as floats."""
    vectors = source.size // lanes
    with k.loop(vectors, loop_kind(source.size, PARALLEL_ELEMENTS), "vector") as vector:
        value = k.load_vector(source, vector * lanes, lanes)
        k.store_vector(floats, vector * lanes, cast(value, f"float32x{lanes}"), lanes)

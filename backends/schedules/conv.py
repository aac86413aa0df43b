"""Schedules of aligned float32 convolutions: the direct kernel with its register tile, also where it skips vectors of zeros, and
Winograd's variants with theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.conv import ConvKernel
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile, direct_cycles, tiles_that_fit
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.window import Window
from graphopt.backends.kernels.winograd import (
    WinogradKernel,
    WinogradShape,
    packed_size,
    winograd_applies,
    winograd_cycles,
)
from graphopt.backends.kernels.winograd_transforms import POINTS, transforms
from graphopt.backends.layout import Blocked, Layout, dense
from graphopt.backends.schedules import sparse
from graphopt.backends.schedules.standalone import Standalone, whole
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import stored

FAMILY = "conv"
DIRECT, WINOGRAD = "direct", "winograd"


def workload(shape: ConvShape, blocked: bool, kept: float = 1.0) -> Workload:
    """The workload of a convolution whose input lies in channel blocks, or in rows; `kept` is the share of the vectors of its weights
    that are not zero."""
    return Workload.of(FAMILY, {**facts_of(shape), "blocked": int(blocked), **sparse.fact(kept)})


def facts_of(shape: ConvShape) -> dict[str, int]:
    """The extents of a convolution."""
    window = shape.window
    pairs = {
        "input": window.input,
        "output": window.output,
        "kernel": window.kernel,
        "stride": window.strides,
        "pad": window.pads,
        "dilation": window.dilations,
    }
    return {
        "batch": shape.batch,
        "groups": shape.groups,
        "channels": shape.channels,
        "filters": shape.filters,
        **{f"{name}_{axis}": pair[i] for name, pair in pairs.items() for i, axis in enumerate("hw")},
    }


def shape_of(workload: Workload) -> ConvShape:
    """The convolution of a workload."""
    names = ("input", "output", "kernel", "stride", "pad", "dilation")
    window = Window(*((workload[f"{name}_h"], workload[f"{name}_w"]) for name in names))
    return ConvShape(workload["batch"], workload["groups"], workload["channels"], workload["filters"], window)


@cache
def candidates(workload: Workload, core: Core) -> list[tuple[float, Config]]:
    """Estimated cycles and schedule, the fastest first."""
    shape = shape_of(workload)
    found = [*_direct(shape, core), *_winograd(shape, core), *sparse.conv_candidates(workload, shape, core)]
    return sorted(found, key=lambda candidate: candidate[0])


def _direct(shape: ConvShape, core: Core) -> Iterator[tuple[float, Config]]:
    for tile in tiles_that_fit(shape, core):
        config: Config = {
            "algorithm": DIRECT,
            "blocks": tile.blocks,
            "columns": tile.columns,
            "rows": tile.rows,
        }
        yield direct_cycles(shape, tile, core), config


def _winograd(shape: ConvShape, core: Core) -> Iterator[tuple[float, Config]]:
    if not winograd_applies(shape):
        return
    for side in POINTS:
        draft = WinogradShape(shape, transforms(side), gemm.GemmTile(1, 1), core)
        for tile in gemm.tiles_that_fit(draft.tiles, shape.filters, core):
            config: Config = {
                "algorithm": WINOGRAD,
                "side": side,
                "tiles": tile.rows,
                "vectors": tile.vectors,
            }
            yield winograd_cycles(replace(draft, tile=tile)), config


def is_winograd(config: Config) -> bool:
    """Whether a schedule is one of Winograd's algorithm."""
    return config["algorithm"] == WINOGRAD


def direct_tile(config: Config) -> ConvTile:
    """The register tile of a direct schedule."""
    return ConvTile(int(config["blocks"]), int(config["columns"]), int(config["rows"]))


def winograd_shape(shape: ConvShape, config: Config, core: Core) -> WinogradShape:
    """The variant that a Winograd schedule describes."""
    tile = gemm.GemmTile(int(config["tiles"]), int(config["vectors"]))
    return WinogradShape(shape, transforms(int(config["side"])), tile, core)


def standalone(workload: Workload, config: Config, core: Core) -> Standalone:
    """A program of the kernel alone, followed by a Relu; without borders, whose code takes long to compile."""
    entire = without_borders(shape_of(workload), int(config.get("side", 1)))
    if sparse.is_sparse(config):
        part = whole_tiles(entire, sparse.conv_tile(config), core)
        return sparse.conv_standalone(workload, part, entire, config, core)
    shape = _whole_tiles(entire, config, core)
    program = Standalone(_cycles(shape, config, core) / _cycles(entire, config, core))
    lanes = core.lanes
    inside = (shape.batch, shape.groups * shape.channels, *shape.window.input)
    outside = (shape.batch, shape.groups * shape.filters, *shape.window.output)
    blocked = workload["blocked"] or is_winograd(config)
    layout: Layout = Blocked(inside, lanes) if blocked else dense(inside)
    source = stored(program.input(layout.size(inside)), inside, layout)
    out = Blocked(outside, lanes)
    store = program.relu(program.output(out.size(outside)), out)
    if is_winograd(config):
        chosen = winograd_shape(shape, config, core)
        weights = program.constant(packed_size(chosen), "float32")
        workspace = program.temporary(chosen.workspace_size)
        program.emit(WinogradKernel(chosen, source, weights, None, workspace, store).emit)
    else:
        vectors = shape.groups * -(-shape.filters // lanes)
        weights = program.constant(vectors * lanes * shape.depth, "float32")
        program.emit(ConvKernel(shape, direct_tile(config), core, source, weights, None, store).emit)
    return program


def _cycles(shape: ConvShape, config: Config, core: Core) -> float:
    """Estimated cycles of a schedule."""
    if is_winograd(config):
        return winograd_cycles(winograd_shape(shape, config, core))
    return direct_cycles(shape, direct_tile(config), core)


def _whole_tiles(shape: ConvShape, config: Config, core: Core) -> ConvShape:
    """The part of a convolution without borders that whole register tiles cover. Winograd's are cut along filters alone."""
    if is_winograd(config):
        return _whole_vectors(shape, int(config["vectors"]), core)
    return whole_tiles(shape, direct_tile(config), core)


def whole_tiles(shape: ConvShape, tile: ConvTile, core: Core) -> ConvShape:
    """The part that whole tiles of a direct kernel cover."""
    shape = _whole_vectors(shape, tile.blocks, core)
    height, width = shape.window.output
    output = (whole(height, tile.rows), whole(width, tile.columns))
    return without_borders(replace(shape, window=replace(shape.window, output=output)), 1)


def _whole_vectors(shape: ConvShape, vectors: int, core: Core) -> ConvShape:
    filters = min(whole(-(-shape.filters // core.lanes), vectors) * core.lanes, shape.filters)
    return replace(shape, filters=filters)


def without_borders(shape: ConvShape, side: int) -> ConvShape:
    """The same convolution of an image that holds its padding and consists of whole tiles of a side."""
    window = shape.window
    height, width = (-(-extent // side) * side for extent in window.output)
    inputs = [
        (output - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
        for output, axis in zip((height, width), window.axes, strict=True)
    ]
    whole = replace(window, input=(inputs[0], inputs[1]), output=(height, width), pads=(0, 0))
    return replace(shape, window=whole)

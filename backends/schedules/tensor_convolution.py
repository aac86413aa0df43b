"""Schedules of convolutions on tensor cores of GPUs: those of products whose left operand is gathered from pixels."""

from __future__ import annotations

import math
from functools import cache

from graphopt.backends.cuda.extents import Extents
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.schedules.standalone import Standalone
from graphopt.backends.schedules.tensor_product import configs
from graphopt.backends.schedules.workload import Config, Workload

FAMILY = "tensor_convolution"


def workload(geometry: Geometry, size: int, by_rows: bool) -> Workload:
    """Of elements of `size` bytes, whose channels are those that are multiplied, zeros at their end included; results are stored
    channel by channel, or pixel by pixel where not `by_rows`."""
    shape = {name: value for name, value in vars(geometry).items() if name != "axes"}
    axes = {
        f"{name}_{i}": value for i, axis in enumerate(geometry.axes) for name, value in vars(axis).items()
    }
    return Workload.of(FAMILY, {**shape, **axes, "size": size, "by_rows": int(by_rows)})


def geometry_of(workload: Workload) -> Geometry:
    """The convolution of a workload."""
    facts = dict(workload.facts)
    names = ("input", "output", "kernel", "stride", "pad", "dilation")
    rank = sum(name.startswith("input_") for name in facts)
    axes = tuple(Axis(*(facts[f"{name}_{i}"] for name in names)) for i in range(rank))
    return Geometry(facts["batch"], facts["groups"], facts["channels"], facts["filters"], axes)


def extents_of(geometry: Geometry) -> Extents:
    """Those of the product: pixels by filters, along the channels of each tap."""
    pixels = geometry.batch * math.prod(axis.output for axis in geometry.axes)
    return Extents(geometry.groups, pixels, geometry.filters, geometry.depth)


@cache
def candidates(workload: Workload, core: Core) -> list[tuple[float, Config]]:
    """Estimated cycles and schedule: that of the rules, then the best of each shape of tiles, then the others, the fastest first."""
    return configs(core, extents_of(geometry_of(workload)), workload["size"], along_depth=True)


def standalone(workload: Workload, config: Config, core: Core) -> Standalone:
    """A program of the kernel alone."""
    from graphopt.backends.cuda.standalone import convolution

    return convolution(workload, config, core)

"""Programs of one candidate on tensor cores: what lowering makes of an operator, without what is before and after it.

Right operands of single products are weights, as those of layers are; those of several come at run time, as those of attention do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.matmul import tensor_product_of
from graphopt.backends.cuda.tensor_convolution import convolution_product
from graphopt.backends.cuda.tensor_elements import BYTES, FLOAT16, TF32, Element
from graphopt.backends.cuda.tensor_product import TensorProduct
from graphopt.backends.kernels.core import Core
from graphopt.backends.layout import Blocked, Layout, dense
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.views import transpose
from graphopt.backends.schedules import tensor_convolution, tensor_product
from graphopt.backends.schedules.choice import Usable
from graphopt.backends.schedules.standalone import Standalone
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import stored

ELEMENTS: Mapping[int, Element] = {1: BYTES["int8"], 2: FLOAT16, 4: TF32}
"""By size: those of one size are multiplied equally fast."""

SCALE = 1e-3
"""Of sums of bytes, whose size does not matter."""


@dataclass(frozen=True)
class _Given:
    """Chooses one schedule for everything."""

    config: Config

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        assert usable(self.config)
        return self.config


def product(workload: Workload, config: Config, core: Core) -> Standalone:
    """`[batch, rows, depth]` by `[batch, depth, columns]`, rounded to what is multiplied."""
    program, ctx = Standalone(), _lowering(core, config)
    element, extents = ELEMENTS[workload["size"]], tensor_product.extents_of(workload)
    batch, rows, columns, depth = vars(extents).values()
    left = stored(program.input(batch * rows * depth, element.dtype), (batch, rows, depth))
    size = batch * depth * columns
    buffer = program.input(size, element.dtype) if batch > 1 else program.constant(size, element.dtype)
    if workload["along_depth"]:
        right = transpose(stored(buffer, (batch, columns, depth)), (0, 2, 1))
    else:
        right = stored(buffer, (batch, depth, columns))
    make = tensor_product_of(ctx, element, left, right, (batch,), extents)
    _emit(program, ctx, make(_storing(program, element, dense((batch, rows, columns)), extents.results)))
    return program


def convolution(workload: Workload, config: Config, core: Core) -> Standalone:
    """A convolution of channels that are neighbours in memory, rounded to what is multiplied."""
    program, ctx = Standalone(), _lowering(core, config)
    element, geometry = ELEMENTS[workload["size"]], tensor_convolution.geometry_of(workload)
    inside = (geometry.batch, geometry.groups * geometry.channels, *(axis.input for axis in geometry.axes))
    outside = (geometry.batch, geometry.groups * geometry.filters, *(axis.output for axis in geometry.axes))
    taps = (axis.kernel for axis in geometry.axes)
    right = "int8" if element.size == 1 else element.dtype
    weights = np.zeros((geometry.groups * geometry.filters, geometry.channels, *taps), right)
    together, by_rows = ctx.twin(Blocked), bool(workload["by_rows"])
    source = stored(program.input(math.prod(inside), element.dtype), inside, together(inside, inside[1]))
    layout = together(outside, outside[1]) if by_rows else dense(outside)
    store = _storing(program, element, layout, math.prod(outside))
    _emit(
        program,
        ctx,
        convolution_product(ctx, element, geometry, storage_of(source), weights, store, by_rows),
    )
    return program


def _lowering(core: Core, config: Config) -> Lowering:
    return Lowering(core, {}, GPU, schedules=_Given(config))


def _emit(program: Standalone, ctx: Lowering, kernel: TensorProduct) -> None:
    with ctx.kernel("candidate") as k:
        kernel.emit(k)
    program.add(ctx.steps)


def _storing(
    program: Standalone, element: Element, layout: Layout, size: int
) -> Callable[[KernelBuilder, Sequence[Expr], Expr], None]:
    """Stores a sum as an element; sums of bytes are scaled before."""
    out = program.output(size, element.dtype)

    def store(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
        if element.size == 1:
            value = cast(cast(value, "float32") * const(SCALE, "float32"), "int32")
        k.store(out, layout.position(index), cast(value, element.dtype))

    return store

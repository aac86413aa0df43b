"""Which nodes a core computes faster in half precision, by the same estimates that choose schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.backends.codegen.inline import PAIR
from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.conv_shape import ConvShape, choose_tile, direct_cycles, flatten_pointwise
from graphopt.backends.kernels.core import Core, NarrowSum
from graphopt.backends.kernels.narrow import wide_core
from graphopt.backends.kernels.tile_cost import weights_cycles
from graphopt.backends.kernels.units import in_units
from graphopt.backends.lower.halves import suits_pairs
from graphopt.backends.lower.matmul import FEW
from graphopt.backends.lower.operator import Refused, attribute, shape_of
from graphopt.backends.lower.windows import window_of
from graphopt.backends.lower.winograd import is_accurate
from graphopt.backends.schedules import conv as conv_schedules
from graphopt.backends.schedules.workload import Config
from graphopt.model import edit

WIDENED = 1.18
"""Cycles of products whose sums are widened now and then, next to those that are not, on Neoverse N1 by llvm-mca."""

ROUND = 0.5
"""Cycles to round an activation where no kernel does it in passing."""


@dataclass(frozen=True)
class InHalves:
    """What kernels of halves are to the estimates: steps of `unit` channels, a core, and a factor."""

    unit: int
    core: Core
    factor: float

    def cycles(self, estimated: float, weights: int) -> float:
        """Of an estimate that brings in a float32 for each of `weights / unit`, which are halves."""
        bringing = weights_cycles(weights) / self.unit
        return (estimated - bringing) * self.factor + weights_cycles(weights) / 2


def _in_halves(core: Core) -> InHalves:
    narrow = isinstance(core.half, NarrowSum)
    return InHalves(1, wide_core(core), WIDENED) if narrow else InHalves(PAIR, core, 1.0)


Gain = Callable[[ir.Node, Core], float]


def gains(core: Core) -> Callable[[ir.Node], bool]:
    """Whether a node whose weights are constant should multiply halves."""

    def gains_from_halves(node: ir.Node) -> bool:
        try:
            return core.half is not None and _GAINS[node.op_type](node, core) > 0
        except Refused:
            return False

    return gains_from_halves


def _conv(node: ir.Node, core: Core) -> float:
    """Cycles saved by a convolution, next to the fastest of float32, which may be one of Winograd's."""
    x, weight, out = (_shape(value) for value in (*node.inputs[:2], node.outputs[0]))
    if len(x) not in (3, 4):
        return 0.0
    groups = attribute(node, "group", 1)
    window = window_of(node, x[2:], out[2:], weight[2:])
    shape = ConvShape(x[0], groups, weight[1], weight[0] // groups, window)
    if (
        min(shape.channels, shape.filters) < core.lanes
        or not suits_pairs(shape, core.lanes)
        or not shape.macs
    ):
        return 0.0
    flat, as_halves = flatten_pointwise(shape), _in_halves(core)
    units = in_units(flat, as_halves.unit)
    halves = direct_cycles(units, choose_tile(units, as_halves.core), as_halves.core)
    halves = as_halves.cycles(halves, math.prod(weight))
    return _float_conv(node, flat, core) - halves - ROUND * math.prod(x)


def _float_conv(node: ir.Node, shape: ConvShape, core: Core) -> float:
    weights = edit.constant(node.inputs[1])
    assert weights is not None
    weights = weights if weights.ndim == 4 else weights[:, :, None, :]

    def usable(config: Config) -> bool:
        return not conv_schedules.is_winograd(config) or is_accurate(weights, int(config["side"]))

    found = conv_schedules.candidates(conv_schedules.workload(shape, True), core)
    return next((cycles for cycles, config in found if usable(config)), 0.0)


def _product(node: ir.Node, core: Core) -> float:
    """Cycles saved by a product."""
    x, weight = (_shape(value) for value in node.inputs[:2])
    if len(x) < 2 or len(weight) != 2 or attribute(node, "transA", 0):
        return 0.0
    k, n = weight[::-1] if attribute(node, "transB", 0) else weight
    rows = math.prod(x[:-1])
    as_halves = _in_halves(core)
    if k % as_halves.unit or n <= FEW or not rows * k:
        return 0.0
    of_halves = _product_cycles(rows, n, k // as_halves.unit, as_halves.core)
    of_halves = as_halves.cycles(of_halves, n * k)
    return _product_cycles(rows, n, k, core) - of_halves - ROUND * rows * k


def _product_cycles(m: int, n: int, depth: int, core: Core) -> float:
    tile = gemm.choose_tile(m, n, depth, core)
    return gemm.gemm_cycles(m, n, depth, tile, core) + weights_cycles(n * depth)


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    if value is None:
        raise Refused("an operand is absent")
    return shape_of(value)


_GAINS: Mapping[str, Gain] = {"Conv": _conv, "Gemm": _product, "MatMul": _product}

"""How many cycles one core takes for a node by the extents of its weights: the estimates that choose schedules, for widths that a model does
not have yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from graphopt.backends.kernels import gemm
from graphopt.backends.kernels.conv_shape import ConvShape, flatten_pointwise
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.tile_cost import TILE, weights_cycles
from graphopt.backends.lower.operator import attribute
from graphopt.backends.lower.windows import window_of
from graphopt.backends.lower.winograd import is_accurate
from graphopt.backends.schedules import conv as conv_schedules
from graphopt.model import edit
from graphopt.model.statistics import macs

Sizes = Mapping[str, int]
"""Of free dimensions by name; others count as 1."""


class Estimate:
    """Cycles of the nodes of one model on one core."""

    def __init__(self, core: Core, sizes: Sizes | None = None) -> None:
        self._core, self._sizes = core, sizes or {}
        self._accurate: dict[tuple[str, int], bool] = {}

    def cycles(self, node: ir.Node, weights: Sequence[int]) -> float:
        """Of a node if its constant weights, which is those of `node.inputs[1]` where it is a convolution or product, had this shape.

        0 where they have no elements. Other operators take what their multiply-adds take in full vectors.
        """
        if not math.prod(weights):
            return 0.0
        of_operator = _CYCLES.get((node.domain, node.op_type))
        found = None if of_operator is None else of_operator(self, node, weights)
        return self._by_macs(node, weights) if found is None else found

    def _by_macs(self, node: ir.Node, weights: Sequence[int]) -> float:
        constants = [edit.tensor(value) for value in node.inputs]
        sizes = [
            tensor.size for tensor in constants if tensor is not None and len(tensor.shape) == len(weights)
        ]
        share = math.prod(weights) / max(*sizes, 1) if sizes else 1.0
        return macs(node) * share * self._core.speed.load / self._core.lanes

    def _conv(self, node: ir.Node, weights: Sequence[int]) -> float | None:
        x, out = self._dims(node.inputs[0]), self._dims(node.outputs[0])
        before = edit.tensor(node.inputs[1])
        if before is None or len(x) not in (3, 4) or len(out) != len(x):
            return None
        groups = attribute(node, "group", 1)
        if groups > 1 and x[1] == groups:
            groups = max(groups * weights[0] // before.shape.numpy()[0], 1)
        window = window_of(node, x[2:], out[2:], weights[2:])
        filters = self._whole_vectors(weights[0]) if groups == 1 else max(weights[0] // groups, 1)
        shape = ConvShape(x[0], groups, weights[1], filters, window)
        return self._depthwise(shape) if groups > 1 and shape.channels == 1 else self._dense(node, shape)

    def _dense(self, node: ir.Node, shape: ConvShape) -> float:
        """The fastest schedule; of Winograd's only those that are accurate for the weights as they are."""
        found = conv_schedules.candidates(conv_schedules.workload(flatten_pointwise(shape), True), self._core)
        return next(
            (
                cycles
                for cycles, config in found
                if not conv_schedules.is_winograd(config) or self._is_accurate(node, int(config["side"]))
            ),
            0.0,
        )

    def _is_accurate(self, node: ir.Node, side: int) -> bool:
        key = node.name or "", side
        if key not in self._accurate:
            array = edit.constant(node.inputs[1])
            assert array is not None
            self._accurate[key] = is_accurate(array if array.ndim == 4 else array[:, :, None, :], side)
        return self._accurate[key]

    def _depthwise(self, shape: ConvShape) -> float:
        """Every vector of results loads each of its inputs and each of its weights."""
        vectors = shape.batch * -(-shape.groups // self._core.lanes) * shape.filters
        taps = math.prod(shape.window.kernel)
        return vectors * math.prod(shape.window.output) * (2 * taps * self._core.speed.load) + vectors * TILE

    def _product(self, node: ir.Node, weights: Sequence[int]) -> float | None:
        out = self._dims(node.outputs[0])
        if len(weights) != 2 or not out or attribute(node, "transA", 0):
            return None
        k, n = weights[::-1] if attribute(node, "transB", 0) else weights
        m, n = math.prod(out[:-1]), self._whole_vectors(n)
        tile = gemm.choose_tile(m, n, k, self._core)
        return gemm.gemm_cycles(m, n, k, tile, self._core) + weights_cycles(n * k)

    def _whole_vectors(self, results: int) -> int:
        """Results as kernels compute them, and have weights for."""
        return -(-results // self._core.lanes) * self._core.lanes

    def _dims(self, value: ir.Value | None) -> tuple[int, ...]:
        if value is None or value.shape is None:
            return ()
        return tuple(
            dim if isinstance(dim, int) else self._sizes.get(dim.value or "", 1) for dim in value.shape
        )


_CYCLES: Mapping[tuple[str, str], Callable[[Estimate, ir.Node, Sequence[int]], float | None]] = {
    ("", "Conv"): Estimate._conv,
    ("", "Gemm"): Estimate._product,
    ("", "MatMul"): Estimate._product,
}

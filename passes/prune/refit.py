"""Weights that give the results which a layer had before channels went, from what it reads now: least squares on samples.

He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.quantize.correct import has_bias, subtract

Rows = NDArray[np.float32]

DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""How hard weights are held where they are, relative to the mean square of what they are multiplied with; the best is taken."""

HELD_OUT = 4
"""One of so many samples tells which is best."""

FEWEST = 16
"""Rows below which only means are made right."""


@dataclass(frozen=True)
class Layer:
    """A node with constant weights, and where its results are compared: `target`, from which `beside` was subtracted if not None."""

    node: ir.Node
    target: str
    beside: str | None

    @property
    def source(self) -> str:
        """The name of what it reads."""
        value = self.node.inputs[0]
        return "" if value is None else value.name or ""

    @property
    def axis(self) -> int:
        """The axis of channels of the target."""
        return 1 if self.node.op_type == "Conv" else -1


def layers(graph: ir.Graph) -> list[Layer]:
    """What can be fitted: products and convolutions, plain or depthwise, in order."""
    return [_layer(node) for node in graph if _can_be_fitted(node)]


def _can_be_fitted(node: ir.Node) -> bool:
    if (node.domain, node.op_type) not in {("", "Conv"), ("", "Gemm"), ("", "MatMul")} or len(
        node.inputs
    ) < 2:
        return False
    weight, source, output = edit.tensor(node.inputs[1]), node.inputs[0], node.outputs[0]
    if weight is None or source is None or edit.tensor(source) is not None or output.shape is None:
        return False
    if len(node.inputs[1].uses()) > 1 or weight.dtype != ir.DataType.FLOAT:  # type: ignore[union-attr]
        return False
    if node.op_type != "Conv":
        return len(weight.shape) == 2 and not attribute(node, "transA") and _is_plain(node)
    groups = attribute(node, "group") or 1
    return (
        attribute(node, "auto_pad") in (None, "NOTSET", "VALID")
        and len(weight.shape) in (3, 4)
        and (groups == 1 or groups == weight.shape[0])
    )


def _is_plain(node: ir.Node) -> bool:
    return all(attribute(node, name) in (None, 1.0) for name in ("alpha", "beta"))


def _layer(node: ir.Node) -> Layer:
    """Where results are added to what comes by another way, the sum is compared: it takes in what went wrong there."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not output.is_graph_output():
        add, other = uses[0].node, uses[0].node.inputs[1 - uses[0].idx]
        if other is not None and edit.tensor(other) is None and other.shape == output.shape:
            return Layer(node, add.outputs[0].name or "", other.name)
    return Layer(node, output.name or "", None)


@dataclass(frozen=True)
class Places:
    """Some positions of results: the indices of all axes but that of channels, which is at `axis`."""

    axis: int
    indices: tuple[NDArray[np.int64], ...]

    @classmethod
    def draw(cls, shape: tuple[int, ...], axis: int, count: int, rng: np.random.Generator) -> Places:
        """At random, each at most once."""
        sizes = [size for place, size in enumerate(shape) if place != axis % len(shape)]
        total = int(np.prod(sizes))
        chosen = np.sort(rng.choice(total, min(count, total), replace=False))
        return cls(axis, tuple(np.unravel_index(chosen, sizes)))

    def of(self, array: Rows) -> Rows:
        """The channels at these positions, as rows."""
        return np.moveaxis(array, self.axis, -1)[self.indices]


def inputs(layer: Layer, array: Rows, places: Places) -> Rows:
    """What a layer multiplies with its weights at positions of its results: `[positions, groups, weights of a filter]`."""
    if layer.node.op_type != "Conv":
        return places.of(array)[:, None]
    weight = edit.tensor(layer.node.inputs[1])
    assert weight is not None
    kernel = tuple(weight.shape.numpy()[2:])
    patches = _patches(layer.node, array, kernel, places)
    groups = attribute(layer.node, "group") or 1
    return patches.reshape(len(patches), groups, -1)


def _patches(node: ir.Node, image: Rows, kernel: tuple[int, ...], places: Places) -> Rows:
    """`[positions, channels, *kernel]`."""
    spatial = len(kernel)
    pads = attribute(node, "pads") or (0,) * (2 * spatial)
    strides = attribute(node, "strides") or (1,) * spatial
    dilations = attribute(node, "dilations") or (1,) * spatial
    around = [(0, 0), (0, 0), *((pads[axis], pads[axis + spatial]) for axis in range(spatial))]
    padded = np.moveaxis(np.pad(image, around), 1, -1)
    batch, *positions = places.indices
    index: list[NDArray[np.int64]] = [batch.reshape(-1, *(1,) * spatial)]
    for axis in range(spatial):
        taps = np.arange(kernel[axis]) * dilations[axis]
        index.append(
            positions[axis].reshape(-1, *(1,) * spatial) * strides[axis]
            + taps.reshape([-1 if place == axis else 1 for place in range(spatial)])
        )
    return np.moveaxis(padded[tuple(index)], -1, 1)


def fit(layer: Layer, rows: Rows, wanted: Rows, names: edit.Names) -> None:
    """Write weights, and a bias where there is a place for one, that make `wanted` [positions, results] of `rows` [positions, groups, weights of a filter]."""
    node = layer.node
    graph, value = node.graph, node.inputs[1]
    weights = edit.constant(value)
    assert graph is not None
    assert value is not None
    assert weights is not None
    bias = _bias(node)
    if bias is None:
        return
    start, restore = _as_filters(node, weights, rows.shape[1])
    results = wanted.astype(np.float64).reshape(len(wanted), rows.shape[1], -1) - bias.reshape(
        rows.shape[1], -1
    )
    biased = has_bias(node, bias.size)
    found, shifts = _solve(rows.astype(np.float64), results, start, biased)
    if biased:
        subtract(graph, node, -shifts.reshape(-1), names)
    value.const_value = ir.Tensor(restore(found).astype(np.float32), value.dtype, name=value.name)


def _bias(node: ir.Node) -> NDArray[np.float32] | None:
    """What a layer adds by itself; None where that is not a vector."""
    size = node.outputs[0].shape[1 if node.op_type == "Conv" else -1]  # type: ignore[index]
    if node.op_type == "MatMul" or len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(int(size), np.float32)  # type: ignore[arg-type]
    found = edit.constant(node.inputs[2])
    return found if found is not None and found.shape == (size,) else None


def _as_filters(
    node: ir.Node, weights: NDArray[np.float32], groups: int
) -> tuple[NDArray[np.float64], Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Weights as `[groups, results of a group, weights of a filter]`, and the way back."""
    transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB"))
    plain = weights.T if transposed else weights
    filters = plain.reshape(groups, plain.shape[0] // groups, -1).astype(np.float64)

    def restore(found: NDArray[np.float64]) -> NDArray[np.float64]:
        back = found.reshape(plain.shape)
        return np.ascontiguousarray(back.T if transposed else back)

    return filters, restore


@dataclass(frozen=True)
class _Sums:
    """Means, products of what is read with itself and with what is wanted, both without their means, and the number of rows.

    Without a bias means count as 0, so that nothing is shifted.
    """

    count: int
    read: NDArray[np.float64]
    wanted: NDArray[np.float64]
    gram: NDArray[np.float64]
    cross: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64], results: NDArray[np.float64], biased: bool) -> _Sums:
        read, wanted = (each.mean(axis=0) * biased for each in (rows, results))
        apart, off = np.swapaxes(rows - read, 0, 1), np.swapaxes(results - wanted, 0, 1)
        turned = np.swapaxes(apart, 1, 2)
        return cls(
            len(rows), read, wanted, turned @ apart / len(rows), np.swapaxes(off, 1, 2) @ apart / len(rows)
        )

    def damped(self, start: NDArray[np.float64], damping: float) -> Fitted:
        """Least squares, held near `start`."""
        held = damping * np.einsum("gww->g", self.gram)[:, None, None] / self.gram.shape[-1] + 1e-12
        gram = self.gram + held * np.eye(self.gram.shape[-1])
        found = np.linalg.solve(gram, np.swapaxes(self.cross + held * start, 1, 2))
        return self.shifted(np.swapaxes(found, 1, 2))

    def shifted(self, filters: NDArray[np.float64]) -> Fitted:
        """Filters, with the shifts that make means right."""
        return filters, self.wanted - np.einsum("gow,gw->go", filters, self.read)


Fitted = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Filters `[groups, results, weights]` and shifts `[groups, results]`."""


def _solve(
    rows: NDArray[np.float64], results: NDArray[np.float64], start: NDArray[np.float64], biased: bool
) -> Fitted:
    """Filters near `start`, by the damping that generalises best; only shifted where none does."""
    if len(rows) < FEWEST:
        return _Sums.of(rows, results, biased).shifted(start)
    check = np.arange(len(rows)) % HELD_OUT == 0
    sums = _Sums.of(rows[~check], results[~check], biased)
    trials: dict[float | None, Fitted] = {damping: sums.damped(start, damping) for damping in DAMPINGS}
    trials[None] = sums.shifted(start)
    errors = {damping: _error(rows[check], results[check], *found) for damping, found in trials.items()}
    best = min(errors, key=lambda damping: errors[damping])
    whole = _Sums.of(rows, results, biased)
    return whole.shifted(start) if best is None else whole.damped(start, best)


def _error(
    rows: NDArray[np.float64],
    results: NDArray[np.float64],
    filters: NDArray[np.float64],
    shifts: NDArray[np.float64],
) -> float:
    given = np.swapaxes(np.swapaxes(rows, 0, 1) @ np.swapaxes(filters, 1, 2), 0, 1)
    return float(np.square(given + shifts - results).sum())

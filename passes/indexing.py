"""Values of the operators that index and count, computed with numpy, for ``evaluate``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute, opset

Arrays = Sequence[Any]


def _size(node: ir.Node, arrays: Arrays) -> Any:
    return np.asarray(arrays[0].size, np.int64)


def _non_zero(node: ir.Node, arrays: Arrays) -> Any:
    """One row a dimension; a scalar counts as a vector of one."""
    return np.array(np.nonzero(np.atleast_1d(arrays[0])), np.int64).reshape(max(arrays[0].ndim, 1), -1)


def _cumulative_sum(node: ir.Node, arrays: Arrays) -> Any:
    array, axis = arrays[0], int(np.asarray(arrays[1]).reshape(-1)[0])
    flipped = np.flip(array, axis) if attribute(node, "reverse") else array
    total = np.cumsum(flipped, axis, dtype=array.dtype)
    if attribute(node, "exclusive"):
        total = total - flipped
    return np.ascontiguousarray(np.flip(total, axis) if attribute(node, "reverse") else total)


def _extreme_index(function: Callable[..., Any]) -> Callable[[ir.Node, Arrays], Any]:
    def run(node: ir.Node, arrays: Arrays) -> Any:
        if attribute(node, "select_last_index"):
            return None
        found = function(arrays[0], axis=attribute(node, "axis"), keepdims=bool(attribute(node, "keepdims")))
        return np.asarray(found, np.int64)

    return run


def _gather_elements(node: ir.Node, arrays: Arrays) -> Any:
    array, indices = arrays
    axis = attribute(node, "axis")
    wrapped = np.where(indices < 0, indices + array.shape[axis], indices)
    grid = list(np.indices(indices.shape))
    grid[axis] = wrapped
    return array[tuple(grid)]


def _gather_nd(node: ir.Node, arrays: Arrays) -> Any:
    array, indices = arrays
    return None if attribute(node, "batch_dims") else array[tuple(np.moveaxis(indices, -1, 0))]


def _scatter_nd(node: ir.Node, arrays: Arrays) -> Any:
    """Without a reduction; where indices repeat, the order is not defined."""
    array, indices, updates = arrays
    rows = indices.reshape(-1, indices.shape[-1])
    if attribute(node, "reduction") not in (None, "none") or len(np.unique(rows, axis=0)) != len(rows):
        return None
    result = array.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


def _triangle(node: ir.Node, arrays: Arrays) -> Any:
    offset = int(arrays[1].reshape(-1)[0]) if len(arrays) > 1 and arrays[1] is not None else 0
    return (np.triu if attribute(node, "upper") else np.tril)(arrays[0], offset)


def _pad(node: ir.Node, arrays: Arrays) -> Any:
    """With a constant, on all axes, from opset 11 on; what removes elements is left alone."""
    axes_given = len(arrays) > 3 and arrays[3] is not None
    if opset(node) < 11 or attribute(node, "mode") != "constant" or axes_given or np.any(arrays[1] < 0):
        return None
    fill = arrays[2].reshape(-1)[0] if len(arrays) > 2 and arrays[2] is not None else 0
    return np.pad(arrays[0], arrays[1].reshape(2, -1).T.tolist(), constant_values=fill)


FUNCTIONS: dict[str, Callable[[ir.Node, Arrays], Any]] = {
    "ArgMax": _extreme_index(np.argmax),
    "ArgMin": _extreme_index(np.argmin),
    "CumSum": _cumulative_sum,
    "Einsum": lambda node, arrays: np.einsum(attribute(node, "equation"), *arrays),
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "Pad": _pad,
    "ScatterND": _scatter_nd,
    "Size": _size,
    "Trilu": _triangle,
}

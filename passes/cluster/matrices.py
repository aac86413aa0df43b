"""Weights as matrices, and what they are multiplied by: convolutions as products of patches and filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute

LARGEST = 2304
"""Rows of a matrix whose products of all pairs are kept."""

ROWS = 1024
"""Patches of a batch that are looked at."""


@dataclass(frozen=True)
class Geometry:
    """How a node reads its first input: rows of its last axis (no `kernel`), or patches of an image in `groups` of channels."""

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"
    groups: int = 1

    @classmethod
    def of(cls, node: ir.Node, shape: Sequence[int]) -> Geometry:
        """That of a Conv with weights of a shape, or of a product."""
        if node.op_type != "Conv":
            return cls()
        rank = len(shape) - 2
        ones, given = (1,) * rank, {name: attribute(node, name) for name in ("strides", "dilations", "pads")}
        return cls(
            tuple(shape[2:]),
            tuple(given["strides"] or ones),
            tuple(given["dilations"] or ones),
            tuple(given["pads"] or (0,) * (2 * rank)),
            attribute(node, "auto_pad") or "NOTSET",
            attribute(node, "group") or 1,
        )

    def rows(self, array: np.ndarray) -> np.ndarray:
        """What the columns of the matrices are multiplied by, `[groups, n, d]`; of many patches some at even distances."""
        if not self.kernel:
            flat = array.reshape(1, -1, array.shape[-1])
            return flat[:, _spread(flat.shape[1])]
        windows = self._windows(self._padded(array))
        places = windows.shape[: -1 - len(self.kernel)]
        patches = windows[np.unravel_index(_spread(math.prod(places)), places)]
        return np.ascontiguousarray(patches.reshape(len(patches), self.groups, -1).swapaxes(0, 1))

    def _padded(self, array: np.ndarray) -> np.ndarray:
        rank = len(self.kernel)
        pads = list(zip(self.pads[:rank], self.pads[rank:], strict=True))
        if self.auto_pad.startswith("SAME"):
            pads = [self._same(size, axis) for axis, size in enumerate(array.shape[2:])]
        return np.pad(array, [(0, 0), (0, 0), *pads]) if self.auto_pad != "VALID" else array

    def _same(self, size: int, axis: int) -> tuple[int, int]:
        """The padding with which there is a result for every step of the stride."""
        stride, reach = self.strides[axis], (self.kernel[axis] - 1) * self.dilations[axis]
        total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
        less = total // 2
        return (total - less, less) if self.auto_pad == "SAME_LOWER" else (less, total - less)

    def _windows(self, padded: np.ndarray) -> np.ndarray:
        """All patches `[n, *places, channels, *kernel]`, in place."""
        axes = tuple(range(2, padded.ndim))
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axes)
        steps = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        return np.moveaxis(windows[:, :, *steps], 1, 1 + len(self.kernel))


def matrices(array: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Weights with output channels along an axis as one matrix a group, `[groups, inputs, outputs of the group]`."""
    filters = np.moveaxis(array, axis, 0)
    return filters.reshape(groups, len(filters) // groups, -1).swapaxes(1, 2)


def weights(found: np.ndarray, axis: int, shape: Sequence[int]) -> np.ndarray:
    """The array of a shape whose `matrices` these are."""
    channels_first = (shape[axis], *(size for i, size in enumerate(shape) if i != axis))
    return np.ascontiguousarray(np.moveaxis(found.swapaxes(1, 2).reshape(channels_first), 0, axis))


@dataclass
class Moments:
    """Of all that the rows of the matrices of a node meet: `sums` and `squares` `[groups, d]`, and the `products` of all pairs
    `[groups, d, d]` unless there are more than `LARGEST` rows."""

    geometry: Geometry
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    products: np.ndarray | None = None
    count: int = 0

    def add(self, array: np.ndarray) -> None:
        """Another batch."""
        rows = self.geometry.rows(array)
        products = None
        if rows.shape[-1] <= LARGEST:
            products = (rows.swapaxes(1, 2) @ rows).astype(np.float64)
        totals = rows.sum(axis=1, dtype=np.float64), np.square(rows, dtype=np.float64).sum(axis=1)
        self.join(Moments(self.geometry, *totals, products, rows.shape[1]))

    def join(self, other: Moments) -> None:
        """All that `other` has seen."""
        if not self.count:
            self.__dict__.update(vars(other))
            return
        self.sums, self.squares = self.sums + other.sums, self.squares + other.squares
        if self.products is not None and other.products is not None:
            self.products = self.products + other.products
        self.count += other.count

    @property
    def means(self) -> np.ndarray:
        return self.sums / max(self.count, 1)

    @property
    def mean_squares(self) -> np.ndarray:
        return self.squares / max(self.count, 1)


def _spread(count: int) -> np.ndarray:
    return np.arange(count) if count <= ROWS else np.linspace(0, count - 1, ROWS).astype(np.int64)

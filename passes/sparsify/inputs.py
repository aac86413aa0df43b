"""What layers read, observed: the rows that meet the rows of their matrices, and statistics of those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.quantize.observers import Channels, Gram
from graphopt.passes.sparsify.layers import Layer

PATCHES = 1024
"""Places of a window that are looked at in one image."""

EXPONENTS = 40
"""Powers of two, down from `HIGHEST_EXPONENT`, that an entropy tells apart; what is smaller counts as zero."""

HIGHEST_EXPONENT = 24

CODES = 2 * EXPONENTS + 1


@dataclass(frozen=True)
class Rows:
    """Takes rows from a batch of what a product reads: `[1, count, rows]`."""

    transposed: bool = False

    def __call__(self, array: np.ndarray) -> np.ndarray:
        array = array.T if self.transposed else array
        return array.reshape(1, -1, array.shape[-1])


@dataclass(frozen=True)
class Patches:
    """Takes what windows see from a batch of images of any rank: `[groups, count, rows]`, a place of the window after the other."""

    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | str
    """Before and behind each axis, or an `auto_pad`."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        padded = np.pad(images, [(0, 0), (0, 0), *self._pads(images.shape[2:])])
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        axes = tuple(range(2, images.ndim))
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        places = tuple(slice(None, None, stride) for stride in self.strides)
        taps = tuple(slice(None, None, dilation) for dilation in self.dilations)
        windows = self._thinned(windows[(slice(None), slice(None), *places, *taps)])
        count, channels = windows.shape[:2]
        rows = np.moveaxis(windows, 1, -1).reshape(count, -1, int(np.prod(self.kernel)), channels)
        split = rows.reshape(-1, rows.shape[2], self.groups, channels // self.groups)
        return np.ascontiguousarray(np.moveaxis(split, 2, 0).reshape(self.groups, len(split), -1))

    def _thinned(self, windows: np.ndarray) -> np.ndarray:
        """Evenly spread places, at most about `PATCHES` of them."""
        rank = len(self.kernel)
        step = int(np.ceil((np.prod(windows.shape[2 : 2 + rank]) / PATCHES) ** (1 / rank)))
        return windows[(slice(None), slice(None), *[slice(None, None, step)] * rank)]

    def _pads(self, extents: tuple[int, ...]) -> list[tuple[int, int]]:
        if not isinstance(self.pads, str):
            return list(self.pads)
        if self.pads == "VALID":
            return [(0, 0)] * len(extents)
        return [
            self._same(*each) for each in zip(extents, self.kernel, self.strides, self.dilations, strict=True)
        ]

    def _same(self, extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
        """Padding with which there is a window for every stride."""
        missing = max((-(-extent // stride) - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
        less, more = missing // 2, missing - missing // 2
        return (less, more) if self.pads == "SAME_UPPER" else (more, less)


def rows_of(layer: Layer) -> Callable[[np.ndarray], np.ndarray]:
    """How the rows that a layer multiplies are taken from its input."""
    node = layer.nodes[0]
    if node.op_type != "Conv":
        return Rows(bool(attribute(node, "transA")))
    weight = edit.tensor(layer.weight)
    assert weight is not None
    kernel = tuple(weight.shape.numpy()[2:])
    rank, mode = len(kernel), attribute(node, "auto_pad") or "NOTSET"
    ends = attribute(node, "pads") or (0,) * 2 * rank
    return Patches(
        layer.groups,
        kernel,
        attribute(node, "strides") or (1,) * rank,
        attribute(node, "dilations") or (1,) * rank,
        mode if mode != "NOTSET" else tuple(zip(ends[:rank], ends[rank:], strict=True)),
    )


@dataclass
class Spread:
    """How often every channel, which are the last axis, has each sign and power of two: `[channels, CODES]`."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, CODES), np.int64))

    def add(self, array: np.ndarray) -> None:
        """Another batch of rows."""
        rows = array.reshape(-1, array.shape[-1])
        exponents = np.frexp(rows)[1] + (EXPONENTS - HIGHEST_EXPONENT)
        sizes = np.where(rows == 0, 0, np.clip(exponents, 0, EXPONENTS))
        codes = np.where(rows < 0, -sizes, sizes) + EXPONENTS
        places = codes + np.arange(rows.shape[1]) * CODES
        counts = np.bincount(places.reshape(-1), minlength=rows.shape[1] * CODES)
        self.join(Spread(counts.reshape(-1, CODES)))

    def join(self, other: Spread) -> None:
        """All that `other` has seen."""
        self.counts = self.counts + other.counts if self.counts.size else other.counts

    @property
    def entropies(self) -> np.ndarray:
        """Of every channel, in bits."""
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        return np.asarray(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1))


@dataclass
class Seen:
    """The rows that one group of a layer has read; `spread` and `gram` where they are wanted."""

    channels: Channels = field(default_factory=Channels)
    spread: Spread | None = None
    gram: Gram | None = None

    def add(self, rows: np.ndarray) -> None:
        """Another batch `[count, rows]`."""
        for each in (self.channels, self.spread, self.gram):
            if each is not None:
                each.add(rows)

    def join(self, other: Seen) -> None:
        """All that `other` has seen."""
        self.channels.join(other.channels)
        if self.spread is not None and other.spread is not None:
            self.spread.join(other.spread)
        if self.gram is not None and other.gram is not None:
            self.gram.join(other.gram)


@dataclass
class Inputs:
    """An observer of what a layer reads."""

    take: Callable[[np.ndarray], np.ndarray]
    groups: list[Seen]

    @classmethod
    def of(cls, layer: Layer, spread: bool, gram: bool) -> Inputs:
        """One that has seen nothing."""
        wanted = [
            Seen(spread=Spread() if spread else None, gram=Gram() if gram else None)
            for _ in range(layer.groups)
        ]
        return cls(rows_of(layer), wanted)

    def add(self, array: np.ndarray) -> None:
        """Another batch."""
        for group, rows in zip(self.groups, self.take(array), strict=True):
            group.add(rows)

    def join(self, other: Inputs) -> None:
        """All that `other` has seen."""
        for group, more in zip(self.groups, other.groups, strict=True):
            group.join(more)


def values(layer: Layer) -> set[ir.Value]:
    """What the nodes of a layer read."""
    return {node.inputs[0] for node in layer.nodes if node.inputs[0] is not None}

"""Where every output position of a resized axis reads its input, and with which weights: tables made at compile time.

Follows the definitions of Resize up to opset 19 in float32, as ONNX Runtime does, so that ties fall the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Axis:
    """One axis to resize from `extent` to `resized` elements; `start` and `end` are its region of interest."""

    extent: int
    resized: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_kept(self) -> bool:
        return self.extent == self.resized and self.scale == 1.0 and (self.start, self.end) == (0.0, 1.0)


@dataclass(frozen=True)
class Interpolation:
    """How values between elements are found."""

    mode: str
    coordinates: str
    nearest: str
    cubic_coefficient: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


@dataclass(frozen=True)
class Taps:
    """`indices` and `weights` of shape [resized, taps]; where `inside` is false the extrapolation value holds."""

    indices: Array
    weights: Array
    inside: Array

    @property
    def count(self) -> int:
        return int(self.indices.shape[1])


def _half_pixel(x: Array, a: Axis) -> Array:
    return (x + np.float32(0.5)) / np.float32(a.scale) - np.float32(0.5)


def _half_pixel_symmetric(x: Array, a: Axis) -> Array:
    adjustment = np.float32(a.resized) / (np.float32(a.scale) * np.float32(a.extent))
    offset = np.float32(a.extent / 2) * (np.float32(1) - adjustment)
    return offset + (x + np.float32(0.5)) / np.float32(a.scale) - np.float32(0.5)


def _pytorch_half_pixel(x: Array, a: Axis) -> Array:
    return _half_pixel(x, a) if a.resized > 1 else np.zeros_like(x)


def _align_corners(x: Array, a: Axis) -> Array:
    return x * np.float32(a.extent - 1) / np.float32(a.resized - 1) if a.resized > 1 else np.zeros_like(x)


def _crop_and_resize(x: Array, a: Axis) -> Array:
    last = np.float32(a.extent - 1)
    if a.resized == 1:
        return np.full_like(x, 0.5 * (a.start + a.end) * last)
    step = np.float32(a.end - a.start) * last / np.float32(a.resized - 1)
    return np.float32(a.start) * last + x * step


COORDINATES: dict[str, Callable[[Array, Axis], Array]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda x, a: x / np.float32(a.scale),
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_crop_and_resize": _crop_and_resize,
    "tf_half_pixel_for_nn": lambda x, a: (x + np.float32(0.5)) / np.float32(a.scale),
}
"""Input coordinates of output positions."""

NEAREST: dict[str, Callable[[Array, Axis], Array]] = {
    "ceil": lambda x, a: np.ceil(x),
    "floor": lambda x, a: np.floor(x),
    "round_prefer_ceil": lambda x, a: np.floor(x + np.float32(0.5)),
    "round_prefer_floor": lambda x, a: np.ceil(x - np.float32(0.5)),
    "simple": lambda x, a: np.ceil(x) if a.scale < 1 else np.trunc(x),
}
"""The element nearest to a coordinate; `simple` is the rule before opset 11."""


def taps(axis: Axis, how: Interpolation) -> Taps:
    """The table of one axis."""
    positions = np.arange(axis.resized, dtype=np.float32)
    x = COORDINATES[how.coordinates](positions, axis).astype(np.float32)
    inside = (
        (x >= 0) & (x <= axis.extent - 1)
        if how.coordinates == "tf_crop_and_resize"
        else np.ones(x.shape, bool)
    )
    if how.mode == "nearest":
        found = NEAREST[how.nearest](x, axis)[:, None]
        return _bounded(axis, found, np.ones_like(found), inside)
    first, weights = _FILTERS[how.mode](axis, how)
    if how.mode == "linear" and not how.antialias:
        x = np.clip(x, 0, axis.extent - 1)
    floor = np.floor(x)
    offsets = np.arange(first, 2 - first)
    places = floor[:, None] + offsets[None, :]
    table = weights(offsets[None, :] - (x - floor)[:, None].astype(np.float64))
    if how.exclude_outside:
        table = np.where((places >= 0) & (places < axis.extent), table, 0.0)
    if how.exclude_outside or how.antialias:
        table = table / table.sum(axis=1, keepdims=True)
    return _bounded(axis, places, table, inside)


def _bounded(axis: Axis, places: Array, weights: Array, inside: Array) -> Taps:
    indices = np.clip(places, 0, axis.extent - 1).astype(np.int32)
    return Taps(indices, weights.astype(np.float32), inside)


Weights = Callable[[Array], Array]


def _linear(axis: Axis, how: Interpolation) -> tuple[int, Weights]:
    """The offset of the first tap and the weight of a tap at a distance."""
    squeeze = min(axis.scale, 1.0) if how.antialias else 1.0
    return int(np.floor(-1 / squeeze)) + 1, lambda d: np.clip(1 - np.abs(d * squeeze), 0, 1)


def _cubic(axis: Axis, how: Interpolation) -> tuple[int, Weights]:
    squeeze = min(axis.scale, 1.0) if how.antialias else 1.0
    a = how.cubic_coefficient

    def weights(distance: Array) -> Array:
        d = np.abs(distance * squeeze)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return int(np.floor(-2 / squeeze)) + 1, weights


_FILTERS = {"cubic": _cubic, "linear": _linear}

"""How one axis is resized: where each element comes from, and from which elements around there it is made.

Positions are computed in float32, as ONNX Runtime does, since the nearest element depends on their last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from graphopt.training.executor.operator import Tensor

Positions = NDArray[np.float32]

HALF = np.float32(0.5)


@dataclass(frozen=True)
class Axis:
    """One axis that is resized: its extents, the scale, and the part of it (from 0 to 1) that a crop keeps."""

    before: int
    after: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _half_pixel(p: Positions, axis: Axis) -> Positions:
    return (p + HALF) / np.float32(axis.scale) - HALF


def _half_pixel_symmetric(p: Positions, axis: Axis) -> Positions:
    """Around the centre, where the extent is not the scale times the one before."""
    share = np.float32(axis.after) / (np.float32(axis.scale) * np.float32(axis.before))
    return np.float32(axis.before / 2) * (1 - share) + (p + HALF) / np.float32(axis.scale) - HALF


def _align_corners(p: Positions, axis: Axis) -> Positions:
    return p * np.float32(axis.before - 1) / np.float32(axis.after - 1) if axis.after > 1 else p


def _crop(p: Positions, axis: Axis) -> Positions:
    start, end, last = np.float32(axis.start), np.float32(axis.end), np.float32(axis.before - 1)
    if axis.after == 1:
        return p + HALF * (start + end) * last
    return start * last + p * (end - start) * last / np.float32(axis.after - 1)


ORIGINS: dict[str, Callable[[Positions, Axis], Positions]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda p, axis: p / np.float32(axis.scale),
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda p, axis: _half_pixel(p, axis) if axis.after > 1 else p,
    "tf_crop_and_resize": _crop,
}
"""Where an element comes from, as a fraction of positions."""

ROUNDINGS: dict[str, Callable[[Positions], Positions]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda p: np.floor(p + HALF),
    "round_prefer_floor": lambda p: np.ceil(p - HALF),
}


@dataclass(frozen=True)
class Sampling:
    """Takes elements from around their origins: the nearest one, two of them or four."""

    mode: str
    transform: str
    rounding: str
    cubic: float = -0.75
    within: bool = False
    """Only elements inside the image count."""
    outside: float | None = None
    """What stands for an origin outside the image, if not the nearest elements."""

    def along(self, x: Tensor, place: int, axis: Axis) -> Tensor:
        """`x` with one of its axes resized."""
        origins = ORIGINS[self.transform](np.arange(axis.after, dtype=np.float32), axis)
        taps, weights = self._taps(origins)
        if self.within:
            weights = weights * ((taps >= 0) & (taps < axis.before))
            weights = weights / weights.sum(axis=0)
        shape = [-1 if i == place else 1 for i in range(x.ndim)]
        positions = torch.from_numpy(taps.clip(0, axis.before - 1).astype(np.int64)).to(x.device)
        shares = torch.from_numpy(weights).to(x)
        result = sum(
            x.index_select(place, position) * share.reshape(shape)
            for position, share in zip(positions, shares, strict=True)
        )
        if self.outside is None:
            return result
        inside = torch.from_numpy((origins >= 0) & (origins <= axis.before - 1)).to(x.device)
        return torch.where(inside.reshape(shape), result, self.outside)

    def _taps(self, origins: Positions) -> tuple[Positions, Positions]:
        """The positions that each element is made from, and their weights: [taps, elements] each."""
        if self.mode == "nearest":
            return ROUNDINGS[self.rounding](origins)[None], np.ones_like(origins)[None]
        first = np.floor(origins)
        share = origins - first
        if self.mode == "linear":
            return np.stack([first, first + 1]), np.stack([1 - share, share])
        distances = np.stack([share + 1, share, 1 - share, 2 - share])
        return np.stack([first - 1, first, first + 1, first + 2]), _keys(distances, np.float32(self.cubic))


def _keys(d: Positions, a: np.float32) -> Positions:
    """The convolution kernel of Keys 1981 at distances up to 2."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)

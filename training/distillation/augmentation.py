"""Images made of images: moved, mirrored, blended. Teacher and student see the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphopt.arrays import Array

PIXELS = (1, 3)
"""Channels of grey and coloured images."""

SMALLEST = 8
"""Pixels on each side from which a value is an image."""

FARTHEST = 1 / 8
"""Of a side, by which images are moved."""


@dataclass(frozen=True)
class Images:
    """The one input that takes images, and its axes."""

    name: str
    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, model: ir.Model) -> Images | None:
        """That of a model; None where no input takes images, or several do."""
        found = [image for value in model.graph.inputs if (image := _images(value)) is not None]
        return found[0] if len(found) == 1 else None


def _images(value: ir.Value) -> Images | None:
    if value.shape is None or len(value.shape) != 4 or value.dtype != ir.DataType.FLOAT:
        return None
    shape = [dim if isinstance(dim, int) else None for dim in value.shape]
    channels = next((axis for axis in (1, 3) if shape[axis] in PIXELS), None)
    if channels is None:
        return None
    height, width = (2, 3) if channels == 1 else (1, 2)
    if any((shape[axis] or SMALLEST) < SMALLEST for axis in (height, width)):
        return None
    return Images(value.name or "", channels, height, width)


def suitable(model: ir.Model) -> tuple[str, ...]:
    """What is done where nobody says: coloured images are moved and mirrored, grey ones, which may be signs, only moved."""
    images = Images.of(model)
    if images is None:
        return ()
    value = next(each for each in model.graph.inputs if each.name == images.name)
    assert value.shape is not None
    return ("shift", "flip") if value.shape[images.channels] == 3 else ("shift",)


def augment(
    feeds: Mapping[str, Array], images: Images | None, names: Sequence[str], rng: np.random.Generator
) -> dict[str, Array]:
    """Feeds with other images."""
    if images is None or not names:
        return dict(feeds)
    pixels = feeds[images.name]
    for name in names:
        pixels = CHANGES[name](pixels, images, rng)
    return {**feeds, images.name: pixels}


def _shift(pixels: Array, images: Images, rng: np.random.Generator) -> Array:
    """Each image by some pixels down and right, or up and left; its border is continued."""
    for axis in (images.height, images.width):
        extent = pixels.shape[axis]
        most = max(int(extent * FARTHEST), 1)
        moves = rng.integers(-most, most + 1, len(pixels))
        pixels = _taken(pixels, axis, np.clip(np.arange(extent) + moves[:, None], 0, extent - 1))
    return pixels


def _flip(pixels: Array, images: Images, rng: np.random.Generator) -> Array:
    """Half of the images, left to right."""
    extent = pixels.shape[images.width]
    places, mirrored = np.arange(extent), rng.random(len(pixels)) < 0.5
    return _taken(pixels, images.width, np.where(mirrored[:, None], places[::-1], places))


def _mix(pixels: Array, images: Images, rng: np.random.Generator) -> Array:
    """Each image with another one of the batch, in a share of its own: what lies between images is to be learned too (Zhang
    et al. 2018; with a teacher Beyer et al. 2022)."""
    share = rng.random(len(pixels)).astype(pixels.dtype).reshape(-1, 1, 1, 1)
    blended: Array = share * pixels + (1 - share) * pixels[rng.permutation(len(pixels))]
    return blended


def _taken(pixels: Array, axis: int, places: Array) -> Array:
    """For each image other places along an axis: [images, places]."""
    shape = [len(pixels), 1, 1, 1]
    shape[axis] = places.shape[1]
    return np.take_along_axis(pixels, places.reshape(shape), axis)


CHANGES: Mapping[str, Callable[[Array, Images, np.random.Generator], Array]] = {
    "flip": _flip,
    "mix": _mix,
    "shift": _shift,
}
"""By the names of `recipe.AUGMENTATIONS`."""

"""Images as feeds: decoding, fitting to an input's size and layout, and preprocessing by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.arrays import Array
from graphopt.errors import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})

_MEAN_STD = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


def _standardise(name: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    mean, deviation = (np.array(values, np.float32) for values in _MEAN_STD[name])
    return lambda pixels: (pixels / np.float32(255) - mean) / deviation


# Name -> function over pixels 0..255, float32 with the channels (RGB) last.
PREPROCESS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "raw": lambda pixels: pixels,
    "unit": lambda pixels: pixels / np.float32(255),
    "signed": lambda pixels: pixels / np.float32(127.5) - np.float32(1),
    "centred": lambda pixels: (pixels - np.float32(127)) / np.float32(128),
    "imagenet": _standardise("imagenet"),
    "cifar": _standardise("cifar"),
}


def find_images(path: Path) -> list[Path]:
    """Every image below a folder, sorted by path."""
    if not path.is_dir():
        return []
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)


def prepare(pixels: Array, preprocess: str, value: ir.Value) -> NDArray[np.float32]:
    """Preprocess a batch of images and bring it into the layout of the input."""
    channels_last = pixels if pixels.shape[-1] in (1, 3) else np.moveaxis(pixels, 1, -1)
    prepared = PREPROCESS[preprocess](channels_last.astype(np.float32))
    return np.moveaxis(prepared, -1, 1) if _geometry(value).channels_first else prepared


@dataclass(frozen=True)
class _Geometry:
    """What an image input wants; a free height or width keeps the image as it is."""

    channels_first: bool
    channels: int
    height: int | None
    width: int | None


def _geometry(value: ir.Value) -> _Geometry:
    shape = [dim if isinstance(dim, int) else None for dim in value.shape or ()]
    if len(shape) != 4:
        raise DataError(f"input {value.name!r} has shape {value.shape}: images need four dimensions")
    channels_first = shape[1] in (1, 3) or shape[3] not in (1, 3)
    channels, height, width = shape[1:] if channels_first else (shape[3], shape[1], shape[2])
    return _Geometry(channels_first, channels or 3, height, width)


class Images(Sequence[Array]):
    """A sequence of samples [C, H, W] or [H, W, C] for one input, decoded and preprocessed on access."""

    def __init__(self, files: Sequence[Path], preprocess: str, value: ir.Value) -> None:
        self._files, self._preprocess, self._value = files, preprocess, value
        self._dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        pixels = _decode(self._files[index], _geometry(self._value))
        prepared = prepare(pixels[None], self._preprocess, self._value)[0]
        return prepared.astype(self._dtype, copy=False)


def _decode(file: Path, geometry: _Geometry) -> NDArray[np.uint8]:
    """Pixels [height, width, channels]: shorter side scaled to fit, then cut at the centre."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError("images need Pillow: pip install 'graphopt[images]'") from error
    try:
        with Image.open(file) as opened:
            image = opened.convert("L" if geometry.channels == 1 else "RGB")
    except OSError as error:
        raise DataError(f"cannot read image {file}: {error}") from error
    size = (geometry.width or image.width, geometry.height or image.height)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(size[1], size[0], geometry.channels)

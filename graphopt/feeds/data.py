"""Feeds from files: .npz archives, folders of .npy arrays and folders of images with named preprocessing."""

import csv
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.arrays import Array, Feeds
from graphopt.errors import DataError
from graphopt.feeds.images import PREPROCESS, Images, find_images, prepare

LABEL_NAMES = ("labels", "y")


@dataclass(frozen=True)
class Dataset:
    """Samples for the inputs of one model.

    ``columns`` maps each input to a sequence of samples without their batch axis; ``labels`` is int [n] or
    None. Images are decoded when they are asked for.
    """

    columns: Mapping[str, Sequence[Array] | Array]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return min((len(column) for column in self.columns.values()), default=0)

    def select(self, indices: Sequence[int]) -> "Dataset":
        """Some of the samples, in this order; they are still decoded when they are asked for."""
        labels = None if self.labels is None else self.labels[list(indices)]
        return Dataset({name: Chosen(column, indices) for name, column in self.columns.items()}, labels)

    def batches(self, size: int = 1, limit: int | None = None) -> Iterator[Feeds]:
        """Feeds of ``size`` samples stacked along a new first axis; a last incomplete batch is left out."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count - size + 1, size):
            yield {
                name: np.stack([column[index] for index in range(start, start + size)])
                for name, column in self.columns.items()
            }


@dataclass(frozen=True)
class Chosen(Sequence[Array]):
    """Some of the samples of a column."""

    column: Sequence[Array] | Array
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.column[self.indices[index]]


Data = str | Path | Dataset | Iterable[Feeds]
"""Where samples come from: files, samples, or feeds of any number of them."""


def load_arrays(path: Path) -> dict[str, Array]:
    """Named arrays from an .npz archive, a single .npy file or a folder of .npy files.

    Pickled objects are refused. Raises DataError for anything else or anything damaged.
    """
    try:
        return _read_arrays(Path(path))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def load_dataset(path: Path, inputs: Sequence[ir.Value], preprocess: str | None = None) -> Dataset:
    """Samples for ``inputs`` from arrays or from a folder of images.

    Arrays are named like the inputs and hold samples along their first axis; an archive with one array serves
    a model with one input whatever its name. ``labels`` (or ``y``) are the labels; an image folder has them
    in labels.csv. With ``preprocess`` arrays of uint8 pixels, channels last or first, are prepared like
    images.
    """
    path = Path(path)
    if preprocess is not None and preprocess not in PREPROCESS:
        raise DataError(f"unknown preprocessing {preprocess!r}; there are: {', '.join(PREPROCESS)}")
    images = find_images(path)
    if images:
        return _image_dataset(path, images, inputs, preprocess)
    return _array_dataset(path, inputs, preprocess)


def take_samples(source: Iterable[Feeds | Array], inputs: Sequence[ir.Value], limit: int | None) -> Dataset:
    """The first `limit` samples, or all, of feeds as a model takes them: by name, or single arrays for a single input.

    Raises DataError for feeds that lack an input, or that differ in shape.
    """
    names = [_name(value) for value in inputs]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    count = 0
    for feeds in source:
        if isinstance(feeds, Mapping):
            found = {name: np.asarray(array) for name, array in feeds.items()}
        else:
            found = {names[0]: np.asarray(feeds)} if names else {}
        missing = [name for name in names if name not in found]
        if missing:
            raise DataError(f"feeds number {count + 1} have nothing for input(s) {', '.join(missing)}")
        if any(not found[name].ndim for name in names):
            raise DataError(f"feeds number {count + 1} have a scalar: samples go along the first axis")
        for name in names:
            parts[name].append(found[name])
        count += len(found[names[0]]) if names else 1
        if limit is not None and count >= limit:
            break
    try:
        columns = {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in parts.items()}
    except ValueError as error:
        raise DataError(f"the feeds do not fit together: {error}") from error
    return Dataset(columns)


def samples_for(data: Data, model: ir.Model, preprocess: str | None, limit: int | None) -> Dataset:
    """Samples of a model from what a caller may give: the path of files, samples, or feeds, of which `limit` are taken."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return load_dataset(Path(data), model.graph.inputs, preprocess)
    return take_samples(data, model.graph.inputs, limit)


def _read_arrays(path: Path) -> dict[str, Array]:
    if path.is_dir():
        files = sorted(path.glob("*.npy"))
        if not files:
            raise ValueError("the folder has neither .npy files nor images")
        return {file.stem: np.load(file, allow_pickle=False) for file in files}
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return {path.stem: content}
    with content:
        return {name: content[name] for name in content.files}


def _array_dataset(path: Path, inputs: Sequence[ir.Value], preprocess: str | None) -> Dataset:
    arrays = load_arrays(path)
    labels = next((arrays.pop(name) for name in LABEL_NAMES if name in arrays), None)
    columns = {
        _name(value): _convert(array, value, preprocess, path)
        for value, array in _match(arrays, inputs, path).items()
    }
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{path}: the arrays have different numbers of samples: {counts}")
    return Dataset(
        columns, None if labels is None else _labels(labels, min(counts.values(), default=0), path)
    )


def _labels(array: Array, samples: int, path: Path) -> NDArray[np.int64]:
    """One whole number a sample. Raises DataError for anything else."""
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or flat.dtype.kind not in "biu" or len(flat) != samples:
        raise DataError(
            f"{path}: labels are one whole number for each of {samples} samples, not {array.dtype} {array.shape}"
        )
    return flat.astype(np.int64)


def _match(arrays: Feeds, inputs: Sequence[ir.Value], path: Path) -> dict[ir.Value, Array]:
    """Which array feeds which input."""
    samples = {name: array for name, array in arrays.items() if array.ndim > 0 and array.dtype.kind in "biuf"}
    missing = [_name(value) for value in inputs if _name(value) not in samples]
    if not missing:
        return {value: samples[_name(value)] for value in inputs}
    if len(inputs) == len(samples) == 1:
        return {inputs[0]: next(iter(samples.values()))}
    raise DataError(f"{path}: no array for input(s) {', '.join(missing)}; the file has: {', '.join(arrays)}")


def _convert(array: Array, value: ir.Value, preprocess: str | None, path: Path) -> Array:
    """Samples with the dtype and the layout of an input."""
    if preprocess is not None and array.ndim == 4:
        array = prepare(array, preprocess, value)
    dtype = _dtype(value)
    rank = len(value.shape) if value.shape is not None else array.ndim
    if array.ndim != rank:
        raise DataError(
            f"{path}: input {_name(value)!r} has {rank} dimensions, its array has {array.ndim}: "
            f"{array.shape}; samples go along the first axis"
        )
    return array if array.dtype == dtype else array.astype(dtype)


def _image_dataset(
    folder: Path, files: Sequence[Path], inputs: Sequence[ir.Value], preprocess: str | None
) -> Dataset:
    if preprocess is None:
        raise DataError(f"{folder} holds images: choose --preprocess from {', '.join(PREPROCESS)}")
    if len(inputs) != 1:
        raise DataError(
            f"{folder} holds images, but the model has {len(inputs)} inputs; give an .npz instead"
        )
    images = Images(files, preprocess, inputs[0])
    return Dataset({_name(inputs[0]): images}, _read_labels(folder, files))


def _read_labels(folder: Path, files: Sequence[Path]) -> NDArray[np.int64] | None:
    """Labels from labels.csv (columns ``file`` and ``label``), or None where there is no such file."""
    table = folder / "labels.csv"
    if not table.exists():
        return None
    try:
        with table.open(newline="") as stream:
            labels = {row["file"]: int(row["label"]) for row in csv.DictReader(stream)}
        return np.array([labels[file.name] for file in files], np.int64)
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{table}: needs columns file and label for every image ({error!r})") from error


def _name(value: ir.Value) -> str:
    return value.name or ""


def _dtype(value: ir.Value) -> np.dtype[Any]:
    return np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()

"""Running an artifact from the command line: feeds from files or drawn at random, outputs to a file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphopt.arrays import Array
from graphopt.errors import DataError, InputError
from graphopt.feeds.data import load_arrays
from graphopt.files import replacing

if TYPE_CHECKING:
    from graphopt_runtime import Variant
    from graphopt_runtime.tensors import NodeArg

Arrays = dict[str, Array]


class Runnable(Protocol):
    """A model that is ready to run, here or elsewhere."""

    @property
    def variants(self) -> Sequence[Variant]: ...

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]: ...

    def get_inputs(self) -> list[NodeArg]: ...

    def get_outputs(self) -> list[NodeArg]: ...


def read_feeds(texts: Sequence[str]) -> Arrays:
    """Arrays from `NAME=FILE.npy`, `FILE.npz` or `FILE.npy` (named after the file). Raises DataError."""
    feeds: Arrays = {}
    for text in texts:
        name, _, file = ("", "", text) if Path(text).exists() else text.rpartition("=")
        arrays = load_arrays(_readable(Path(file)))
        if name and len(arrays) != 1:
            raise DataError(f"--input {text}: the file has {len(arrays)} arrays, NAME= takes one")
        feeds |= dict(zip([name], arrays.values(), strict=True)) if name else arrays
    return feeds


def _readable(path: Path) -> Path:
    """Raises DataError for what is missing, or is a pipe or a device, which could be read for ever."""
    if not path.exists():
        raise DataError(f"--input: there is no file {path}")
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"--input: {path} is neither a regular file nor a folder")
    return path


def feeds_for(compiled: Runnable, texts: Sequence[str], seed: int = 0) -> Arrays:
    """The arrays in the given files, or random ones without any. A single array serves a single input whatever its name.

    Raises DataError for a file that cannot be read and InputError for a name that the model does not have.
    """
    feeds = read_feeds(texts) if texts else random_feeds(compiled.variants[0], seed)
    names = [tensor.name for tensor in compiled.get_inputs()]
    if len(names) == len(feeds) == 1:
        return {names[0]: next(iter(feeds.values()))}
    if unknown := sorted(feeds.keys() - set(names)):
        raise InputError(f"the model has no input {', '.join(unknown)}; its inputs are {', '.join(names)}")
    return feeds


def run(compiled: Runnable, feeds: Mapping[str, Array]) -> Arrays:
    """Outputs by name. Raises InputError for feeds that do not fit."""
    outputs = compiled.run(None, feeds)
    return {tensor.name: array for tensor, array in zip(compiled.get_outputs(), outputs, strict=True)}


def random_feeds(variant: Variant, seed: int = 0) -> Arrays:
    """Random arrays for the inputs of a compiled model, drawn as for its ONNX model: standard normal floats, masks by name.

    Other integers than bytes, masks and lengths are 0 or 1, because an artifact does not tell which table they index.
    """
    import onnx_ir as ir

    from graphopt.feeds import random_feeds

    values = [
        ir.Value(name=t.name, shape=ir.Shape(t.shape), type=ir.TensorType(ir.DataType.from_numpy(t.dtype)))
        for t in variant.inputs
    ]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 1})
    drawn = random_feeds.random_feeds(ir.Model(graph, ir_version=8), seed)
    return {
        name: array if _may_be_any(name, array) else np.minimum(array, 1) for name, array in drawn.items()
    }


def _may_be_any(name: str, array: Array) -> bool:
    from graphopt.feeds.random_feeds import LENGTH_NAME

    return array.dtype.kind not in "iu" or array.dtype.itemsize == 1 or LENGTH_NAME.search(name) is not None


def save(outputs: Mapping[str, Array], path: Path) -> None:
    """Write arrays to an .npz file keyed by name; the file appears only when complete. Raises OutputError."""
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

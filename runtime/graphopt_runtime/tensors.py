"""Descriptions of the tensors that go in and out of a model, and the memory for those that come out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt_runtime.device_arrays import DeviceArray, allocate_on_gpu, device_array
from graphopt_runtime.errors import ArtifactError, InputError

ALIGNMENT = 64
"""Bytes; what the kernels want of every tensor."""

Array = np.ndarray[Any, np.dtype[Any]]


Memory = Array | DeviceArray

ONNX_TYPES = {"float32": "float", "float64": "double"}
"""numpy dtype name -> ONNX element type, where they differ."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of one variant."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class NodeArg:
    """An input or output as ONNX Runtime's InferenceSession describes it; a dim that differs between variants
    is the string of its values, like "64|128"."""

    name: str
    shape: list[int | str]
    type: str


@dataclass(frozen=True)
class Variant:
    """One set of input shapes and the outputs that belong to it."""

    index: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tensor.shape for tensor in self.inputs)

    @property
    def kinds(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Names and dtypes of inputs and outputs."""
        return tuple(
            tuple((t.name, t.dtype.name) for t in tensors) for tensors in (self.inputs, self.outputs)
        )

    def __str__(self) -> str:
        return ", ".join(f"{tensor.name}{list(tensor.shape)}" for tensor in self.inputs)


def parse_variants(manifest: Mapping[str, Any]) -> tuple[Variant, ...]:
    """The variants of a manifest of format 1. Raises ArtifactError where an entry is malformed."""
    try:
        variants = tuple(
            Variant(index, _tensors(entry["inputs"]), _tensors(entry["outputs"]))
            for index, entry in enumerate(manifest["variants"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the manifest describes a variant in a way this runtime cannot read: {error}"
        ) from error
    if not variants:
        raise ArtifactError("the manifest lists no variants")
    if len({variant.kinds for variant in variants}) > 1:
        raise ArtifactError("the variants in the manifest differ in more than shapes")
    return variants


def _tensors(entries: list[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(str(e["name"]), _shape(e["shape"]), np.dtype(str(e["dtype"]))) for e in entries)


def _shape(dims: list[Any]) -> tuple[int, ...]:
    if not all(type(dim) is int and dim >= 0 for dim in dims):
        raise ValueError(f"the shape {dims} has dims that are not fixed sizes")
    return tuple(dims)


def node_args(tensors: list[tuple[Tensor, ...]]) -> list[NodeArg]:
    """Describes the inputs (or outputs) of all variants at once."""
    return [
        NodeArg(same[0].name, _common_shape(same), onnx_type(same[0].dtype))
        for same in zip(*tensors, strict=True)
    ]


def _common_shape(tensors: tuple[Tensor, ...]) -> list[int | str]:
    if len({len(tensor.shape) for tensor in tensors}) > 1:
        return ["|".join(str(list(tensor.shape)) for tensor in tensors)]
    sizes = [list(dict.fromkeys(dims)) for dims in zip(*(tensor.shape for tensor in tensors), strict=True)]
    return [size[0] if len(size) == 1 else "|".join(map(str, size)) for size in sizes]


def onnx_type(dtype: np.dtype[Any]) -> str:
    """For example tensor(float)."""
    return f"tensor({ONNX_TYPES.get(dtype.name, dtype.name)})"


def allocate(tensor: Tensor) -> tuple[Array, int]:
    """An uninitialised array that starts at a multiple of 64 bytes, and its address."""
    buffer = np.empty(tensor.nbytes + ALIGNMENT, np.uint8)
    base = address(buffer)
    padding = -base % ALIGNMENT
    return np.ndarray(tensor.shape, tensor.dtype, buffer, padding), base + padding


def allocate_all(tensors: Sequence[Tensor], on_gpu: bool = False) -> tuple[Sequence[Memory], list[int]]:
    """An array for each tensor, and their addresses."""
    if on_gpu:
        made = [allocate_on_gpu(tensor.shape, tensor.dtype) for tensor in tensors]
        return made, [array.start for array in made]
    pairs = [allocate(tensor) for tensor in tensors]
    return [array for array, _ in pairs], [start for _, start in pairs]


def address(array: Memory) -> int:
    """The address of the first element."""
    if isinstance(array, DeviceArray):
        return array.start
    data: int = array.__array_interface__["data"][0]
    return data


def as_input(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """`value` as a dense row-major array, copied only if it is not one. Raises InputError on another dtype."""
    try:
        array = value if type(value) is np.ndarray else _on_host(name, value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"input {name!r} cannot be made an array: {error}") from error
    _check_dtype(name, array.dtype, dtype)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def as_memory(name: str, value: Any, dtype: np.dtype[Any], stream: int) -> Memory:
    """The same for a model on a GPU, which takes arrays there as they are, and `stream` waits for their values."""
    array = None if type(value) is np.ndarray else device_array(name, value, stream)
    if array is None:
        return as_input(name, value, dtype)
    _check_dtype(name, array.dtype, dtype)
    return array


def _on_host(name: str, value: Any) -> Array:
    device_array(name, value, None)
    if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    return np.from_dlpack(value)


def _check_dtype(name: str, given: np.dtype[Any], dtype: np.dtype[Any]) -> None:
    if given != dtype:
        raise InputError(
            f"input {name!r} has dtype {given}, the model takes {dtype}; convert it with .astype({str(dtype)!r})"
        )


def check_output(tensor: Tensor, value: Any, stream: int | None = None) -> Memory:
    """An array that the caller lends for an output, for use on a stream where the model runs on a GPU. Raises InputError if it
    cannot take the result."""
    if not isinstance(value, np.ndarray):
        value = device_array(tensor.name, value, stream) or value
    if not isinstance(value, np.ndarray | DeviceArray):
        raise InputError(f"out for {tensor.name!r} is a {type(value).__name__}, not a numpy array")
    if value.dtype != tensor.dtype or value.shape != tensor.shape:
        raise InputError(
            f"out for {tensor.name!r} is {value.dtype}{list(value.shape)}, the result is {tensor}"
        )
    if isinstance(value, DeviceArray):
        if value.is_read_only:
            raise InputError(f"out for {tensor.name!r} must be writeable")
        return value
    if not (value.flags.c_contiguous and value.flags.writeable):
        raise InputError(f"out for {tensor.name!r} must be C-contiguous and writeable")
    return value


def refuse_shared_memory(
    outputs: Sequence[Tensor], arrays: Sequence[Memory], inputs: Sequence[Memory]
) -> None:
    """Raises InputError when an array lent for an output overlaps an input or another output."""
    for index, (tensor, array) in enumerate(zip(outputs, arrays, strict=True)):
        if any(may_share_memory(array, other) for other in [*inputs, *arrays[:index]]):
            raise InputError(f"out for {tensor.name!r} shares memory with an input or another output")


def may_share_memory(one: Memory, other: Memory) -> bool:
    """Whether two arrays may overlap."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.may_share_memory(one, other)
    first, second = address(one), address(other)
    return first < second + other.nbytes and second < first + one.nbytes

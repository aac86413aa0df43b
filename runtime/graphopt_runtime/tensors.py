"""Descriptions of the tensors that go in and out of a model, and the memory for those that come out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt_runtime.errors import ArtifactError, InputError

ALIGNMENT = 64
"""Bytes; what the kernels want of every tensor."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class DeviceArray:
    """A dense row-major array in the memory of a GPU; `owner` keeps it alive."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    owner: Any

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


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


def allocate_all(tensors: Sequence[Tensor]) -> tuple[list[Array], list[int]]:
    """An array for each tensor, and their addresses."""
    pairs = [allocate(tensor) for tensor in tensors]
    return [array for array, _ in pairs], [start for _, start in pairs]


def device_array(name: str, value: Any, on_gpu: bool) -> DeviceArray | None:
    """What tells of itself by the CUDA array interface, as arrays of torch and cupy do; None for anything else. Raises InputError
    where it has gaps, or the model does not run on a GPU.
    """
    facts = getattr(value, "__cuda_array_interface__", None)
    if facts is None:
        return None
    if not on_gpu:
        raise InputError(f"{name!r} is on a GPU, the model was compiled for the CPU; copy it first")
    shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
    if facts.get("strides") not in (None, dense_strides(shape, dtype)):
        raise InputError(f"{name!r} is not contiguous on the GPU; make it so first")
    return DeviceArray(shape, dtype, facts["data"][0], value)


def dense_strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Bytes between neighbours along each axis."""
    return tuple(math.prod(shape[axis + 1 :]) * dtype.itemsize for axis in range(len(shape)))


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
    except ValueError as error:
        raise InputError(f"input {name!r} cannot be made an array: {error}") from error
    _check_dtype(name, array.dtype, dtype)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def as_memory(name: str, value: Any, dtype: np.dtype[Any]) -> Memory:
    """The same for a model on a GPU, which takes arrays there as they are."""
    array = device_array(name, value, on_gpu=True)
    if array is None:
        return as_input(name, value, dtype)
    _check_dtype(name, array.dtype, dtype)
    return array


def _on_host(name: str, value: Any) -> Array:
    device_array(name, value, on_gpu=False)
    return np.asarray(value)


def _check_dtype(name: str, given: np.dtype[Any], dtype: np.dtype[Any]) -> None:
    if given != dtype:
        raise InputError(
            f"input {name!r} has dtype {given}, the model takes {dtype}; convert it with .astype({str(dtype)!r})"
        )


def check_output(tensor: Tensor, value: Any, on_gpu: bool = False) -> Memory:
    """An array that the caller lends for an output. Raises InputError if it cannot take the result."""
    if not isinstance(value, np.ndarray):
        value = device_array(tensor.name, value, on_gpu) or value
    if not isinstance(value, np.ndarray | DeviceArray):
        raise InputError(f"out for {tensor.name!r} is a {type(value).__name__}, not a numpy array")
    if value.dtype != tensor.dtype or value.shape != tensor.shape:
        raise InputError(
            f"out for {tensor.name!r} is {value.dtype}{list(value.shape)}, the result is {tensor}"
        )
    if isinstance(value, DeviceArray):
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

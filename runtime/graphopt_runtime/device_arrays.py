"""Arrays in the memory of a GPU: those of other libraries, used where they lie, and those that models return."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt_runtime import dlpack
from graphopt_runtime.driver import DEVICE, Block, Event, copy_to_host
from graphopt_runtime.errors import InputError

LEGACY = 1
"""The default stream, as the driver and DLPack call it where 0 could mean none: numbers of streams are never 0 here."""

NO_STREAM = -1
"""What takers of DLPack say that need no order."""

ON_HOST = (dlpack.CPU, dlpack.CUDA_HOST)
ON_GPU = (dlpack.CUDA, dlpack.CUDA_MANAGED)

KNOWN = {np.dtype(kind).name: np.dtype(kind) for kind in "?bBhHiIqQefd"}
"""The types of tensors of models, by name."""


class GpuArray:
    """A dense row-major array in the memory of the GPU, which a model on a stream has returned or will have filled by then.

    `torch.from_dlpack`, `cupy.from_dlpack` and the like take it over without a copy; their stream waits for the result.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._block = Block(self.nbytes)
        self._ready: Event | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def start(self) -> int:
        """The address of the first element."""
        return self._block.start

    def complete_at(self, event: Event) -> None:
        """Its values are there when the event is reached."""
        self._ready = event

    def hold(self, stream: int) -> None:
        """What is asked of `stream` from now on waits until the values are there."""
        if self._ready is not None:
            self._ready.hold(stream)

    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """A copy in the memory of the host, once the values are there."""
        if self._ready is not None:
            self._ready.wait()
        array = np.empty(self.shape, self.dtype)
        copy_to_host(array.ctypes.data, self.start, self.nbytes)
        return array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, DEVICE

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule for a taker whose stream is `stream`: None for the default one, -1 for no order. Raises BufferError where
        another device or a copy is asked for.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("arrays of graphopt are handed over without a copy, on the GPU where they lie")
        if stream != NO_STREAM:
            self.hold(LEGACY if stream is None else stream)
        return dlpack.capsule(self.shape, self.dtype, self.start, self.__dlpack_device__(), self._block)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.hold(LEGACY)
        facts = {"shape": self.shape, "typestr": self.dtype.str, "version": 3, "strides": None}
        return {**facts, "data": (self.start, False), "stream": LEGACY}

    def __repr__(self) -> str:
        return f"<GpuArray {self.dtype}{list(self.shape)}>"


@dataclass(frozen=True)
class DeviceArray:
    """What is known of a dense row-major array in the memory of a GPU; `owner` is the object that its user has, `keep` what keeps
    it alive besides."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    owner: Any
    keep: Any = None
    is_read_only: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def allocate_on_gpu(shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
    """Memory for a result, owned by a `GpuArray`. Raises GraphoptError where the GPU has too little."""
    made = GpuArray(shape, dtype)
    return DeviceArray(shape, dtype, made.start, made)


def stream_number(stream: Any) -> int:
    """The driver's handle of a stream: an integer, or what `__cuda_stream__` tells; `LEGACY` for 0. Raises InputError for anything else."""
    if hasattr(stream, "__cuda_stream__"):
        stream = stream.__cuda_stream__()[1]
    if isinstance(stream, bool) or not isinstance(stream, int | np.integer) or stream < 0:
        raise InputError(
            f"stream is {stream!r}, not a stream; give an object with __cuda_stream__, or the handle as an integer "
            "(of torch: stream.cuda_stream; of cupy: stream.ptr)"
        )
    return int(stream) or LEGACY


def device_array(name: str, value: Any, stream: int | None) -> DeviceArray | None:
    """An array on the GPU that tells of itself by DLPack or the CUDA array interface, as those of torch, cupy and jax do, and
    whose values `stream` waits for; None for anything on the host.

    Raises InputError where it has gaps or lies on another device, or `stream` is None: the model runs on the CPU.
    """
    if isinstance(value, GpuArray):
        return _own(name, value, stream)
    if hasattr(value, "__dlpack_device__"):
        device, number = value.__dlpack_device__()
        if device in ON_HOST:
            return None
        _check_device(name, device, number, stream)
        return _by_dlpack(name, value, LEGACY if stream is None else stream)
    if (facts := getattr(value, "__cuda_array_interface__", None)) is None:
        return None
    _check_device(name, dlpack.CUDA, DEVICE, stream)
    return _by_interface(name, value, facts, LEGACY if stream is None else stream)


def _own(name: str, value: GpuArray, stream: int | None) -> DeviceArray:
    _check_device(name, dlpack.CUDA, DEVICE, stream)
    value.hold(LEGACY if stream is None else stream)
    return DeviceArray(value.shape, value.dtype, value.start, value)


def _check_device(name: str, device: int, number: int, stream: int | None) -> None:
    if stream is None:
        raise InputError(f"{name!r} is on a GPU, the model was compiled for the CPU; copy it first")
    if device not in ON_GPU:
        raise InputError(
            f"{name!r} is on a device of type {device} (of DLPack), the model runs on a GPU of NVIDIA; copy it first"
        )
    if number != DEVICE:
        raise InputError(f"{name!r} is on GPU {number}, the model runs on GPU {DEVICE}; copy it first")


def _by_dlpack(name: str, value: Any, stream: int) -> DeviceArray:
    try:
        capsule = dlpack.request(value, stream)
        view = dlpack.read(capsule)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name!r} cannot be taken over by DLPack: {error}") from error
    if (dtype := KNOWN.get(view.type)) is None:
        raise InputError(f"{name!r} has dtype {view.type}, which no model takes; convert it first")
    strides = None if view.strides is None else tuple(step * dtype.itemsize for step in view.strides)
    _check_dense(name, view.shape, strides, dtype)
    return DeviceArray(view.shape, dtype, view.start, value, capsule, view.is_read_only)


def _by_interface(name: str, value: Any, facts: dict[str, Any], stream: int) -> DeviceArray:
    shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
    _check_dense(name, shape, facts.get("strides"), dtype)
    start, is_read_only = facts["data"]
    if (before := facts.get("stream")) is not None and before != (stream):
        Event(before).hold(stream)
    return DeviceArray(shape, dtype, start, value, None, is_read_only)


def _check_dense(
    name: str, shape: tuple[int, ...], strides: tuple[int, ...] | None, dtype: np.dtype[Any]
) -> None:
    """Steps along axes of one element, and those of empty arrays, do not matter."""
    if strides is None or 0 in shape:
        return
    wanted = dtype.itemsize
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and step != wanted:
            raise InputError(f"{name!r} is not contiguous on the GPU; make it so first")
        wanted *= size

"""Arrays and streams on the GPU as other libraries have them, made by the driver alone."""

import ctypes
import weakref
from typing import Any

import numpy as np

from graphopt_runtime import dlpack
from graphopt_runtime.device_arrays import GpuArray
from graphopt_runtime.gpu import DRIVER


def call(name: str, *arguments: Any) -> None:
    assert getattr(ctypes.CDLL(DRIVER), name)(*arguments) == 0


class Stream:
    """A stream that waits for no other."""

    def __init__(self) -> None:
        context, handle = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        call("cuCtxPushCurrent_v2", context)
        call("cuStreamCreate", ctypes.byref(handle), 1)
        call("cuCtxPopCurrent_v2", ctypes.byref(context))
        self.handle = handle
        weakref.finalize(self, call, "cuStreamDestroy_v2", handle).atexit = False

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle.value or 0

    def fill(self, array: GpuArray, values: np.ndarray) -> None:
        """Asks for a copy, which is under way when this returns."""
        source = ctypes.c_uint64(values.ctypes.data)
        call(
            "cuMemcpyAsync", ctypes.c_uint64(array.start), source, ctypes.c_size_t(values.nbytes), self.handle
        )


class Foreign:
    """An array on the GPU with these values."""

    def __init__(self, values: np.ndarray) -> None:
        self.array = GpuArray(values.shape, values.dtype)
        stream = Stream()
        stream.fill(self.array, values)
        call("cuStreamSynchronize", stream.handle)

    def numpy(self) -> np.ndarray:
        return self.array.numpy()


class ByInterface(Foreign):
    """One that knows the CUDA array interface."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.array.__cuda_array_interface__


class ByDlpack(Foreign):
    """One that knows DLPack; `changes` are made to its description, and `streams` are those that it was asked for."""

    def __init__(self, values: np.ndarray, device: tuple[int, int] = (2, 0), **changes: Any) -> None:
        super().__init__(values)
        self.device, self.changes, self.streams = device, changes, list[int]()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, stream: int) -> Any:
        self.streams.append(stream)
        capsule = self.array.__dlpack__(stream=stream)
        managed = ctypes.cast(dlpack._pointer(capsule, b"dltensor"), ctypes.POINTER(dlpack._Managed))
        for name, value in self.changes.items():
            setattr(managed.contents.tensor, name, value)
        return capsule

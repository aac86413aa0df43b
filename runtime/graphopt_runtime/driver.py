"""What the runtime asks of NVIDIA's driver besides running models: memory, and the order of streams."""

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from graphopt_runtime.errors import GraphoptError
from graphopt_runtime.gpu import DRIVER

DEVICE = 0
"""The GPU that models run on."""

_WITHOUT_TIME = 2
"""A flag of events that nobody takes the time of."""


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(DRIVER)


@cache
def _context() -> ctypes.c_void_p:
    """The context that every library of the process shares; kept until the process ends."""
    context = ctypes.c_void_p()
    ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), DEVICE)
    return context


def ask(name: str, *arguments: Any) -> None:
    """Raises GraphoptError with the driver's sentence."""
    status = getattr(_driver(), name)(*arguments)
    if status == 0:
        return
    sentence = ctypes.c_char_p()
    _driver().cuGetErrorString(status, ctypes.byref(sentence))
    raise GraphoptError(f"{name.split('_')[0]}: {(sentence.value or b'unknown error').decode()}")


@contextmanager
def inside() -> Iterator[None]:
    ask("cuCtxPushCurrent_v2", _context())
    try:
        yield
    finally:
        ask("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


class Block:
    """Memory on the GPU, freed with the last reference; this waits for all work of the GPU. Raises GraphoptError where memory is short."""

    def __init__(self, size: int) -> None:
        place = ctypes.c_uint64()
        with inside():
            ask("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(max(size, 1)))
        self.start: int = place.value
        weakref.finalize(self, _discard, "cuMemFree_v2", place).atexit = False


class Event:
    """The point that a stream has been asked to come to."""

    def __init__(self, stream: int) -> None:
        self._event = ctypes.c_void_p()
        with inside():
            ask("cuEventCreate", ctypes.byref(self._event), _WITHOUT_TIME)
            weakref.finalize(self, _discard, "cuEventDestroy_v2", self._event).atexit = False
            ask("cuEventRecord", self._event, ctypes.c_void_p(stream))

    def hold(self, stream: int) -> None:
        """What is asked of `stream` from now on waits for this point."""
        with inside():
            ask("cuStreamWaitEvent", ctypes.c_void_p(stream), self._event, 0)

    def wait(self) -> None:
        """Until the point is reached."""
        with inside():
            ask("cuEventSynchronize", self._event)


def copy_to_host(to: int, start: int, size: int) -> None:
    """Bytes from the GPU, once they are there."""
    with inside():
        ask("cuMemcpyDtoH_v2", ctypes.c_void_p(to), ctypes.c_uint64(start), ctypes.c_size_t(size))


def _discard(function: str, handle: Any) -> None:
    with inside():
        getattr(_driver(), function)(handle)

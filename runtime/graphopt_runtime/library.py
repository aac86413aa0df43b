"""Loads the machine code of an artifact from memory and declares its C interface (csrc/graphopt.h)."""

import _ctypes
import ctypes
import os
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from graphopt_runtime.errors import ArtifactError

Pointers = ctypes.Array[ctypes.c_void_p]

_TABLE = ctypes.c_void_p


class Library:
    """A loaded library and its functions (`graphopt_` left out); unloaded when nothing refers to it any more, but
    never at the exit of the interpreter."""

    def __init__(self, code: memoryview, name: str) -> None:
        try:
            library, release = _load(code)
        except OSError as error:
            raise ArtifactError(f"{name}: its library cannot be loaded: {error}") from error
        weakref.finalize(self, release).atexit = False
        try:
            self._declare(library)
        except AttributeError as error:
            raise ArtifactError(f"{name}: its library is not a graphopt model: {error}") from error

    def _declare(self, library: ctypes.CDLL) -> None:
        handle, number = ctypes.c_void_p, ctypes.c_int
        call = [handle, number, _TABLE, _TABLE]
        self.create = _function(library.graphopt_create, handle, [ctypes.c_void_p, number])
        self.run = _function(library.graphopt_run, number, call)
        self.time = _function(library.graphopt_time, ctypes.c_double, [*call, number])
        self.set_threads = _function(library.graphopt_set_threads, None, [handle, number])
        self.set_passive = _function(library.graphopt_set_passive, None, [handle, number])
        self.destroy = _function(library.graphopt_destroy, None, [handle])
        self.layer_times: Callable[[], Any] | None = None
        if hasattr(library, "graphopt_layer_times"):
            self.layer_times = _function(library.graphopt_layer_times, ctypes.POINTER(ctypes.c_double), [])
        self.run_on: Any = None
        if hasattr(library, "graphopt_run_on"):
            self.run_on = _function(library.graphopt_run_on, number, [*call, ctypes.c_void_p])
        self.failure: Callable[[], bytes] = bytes
        if hasattr(library, "graphopt_failure"):
            self.failure = _function(library.graphopt_failure, ctypes.c_char_p, [])
        self.error_string = _function(library.graphopt_error_string, ctypes.c_char_p, [number])


def _function(entry: Any, result: Any, arguments: list[Any]) -> Callable[..., Any]:
    entry.restype, entry.argtypes = result, arguments
    function: Callable[..., Any] = entry
    return function


class Handle:
    """One graphopt_model, destroyed when the last reference, a running call included, is gone."""

    def __init__(self, library: Library, weights: int, threads: int, keep_alive: object) -> None:
        self.library = library
        self.keep_alive = keep_alive
        self.address = library.create(weights, threads)
        if not self.address:
            reason = library.failure().decode() or "out of memory"
            raise ArtifactError(f"the model's handle could not be created: {reason}")
        weakref.finalize(self, _destroy, library, self.address, keep_alive).atexit = False


def _destroy(library: Library, address: int, keep_alive: object) -> None:
    """Gets the weights too, so that they stay mapped until here."""
    library.destroy(address)


def _load(code: memoryview) -> tuple[ctypes.CDLL, Callable[[], None]]:
    """From memory, or from a file on systems without memfd_create or where such memory may not be executed."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            return _load_from_memory(code)
    return _load_from_temporary_file(code)


def _load_from_memory(code: memoryview) -> tuple[ctypes.CDLL, Callable[[], None]]:
    """The descriptor stays open while the library is loaded: the loader knows libraries by path, and this path is
    the number of the descriptor, which must not come to mean another library."""
    descriptor = os.memfd_create("graphopt", os.MFD_CLOEXEC)
    path = f"/proc/self/fd/{descriptor}"
    try:
        _write_all(descriptor, code)
        library = ctypes.CDLL(path)
    except BaseException:
        os.close(descriptor)
        raise

    def release() -> None:
        _ctypes.dlclose(library._handle)
        if not _is_loaded(path):
            os.close(descriptor)

    return library, release


def _load_from_temporary_file(code: memoryview) -> tuple[ctypes.CDLL, Callable[[], None]]:
    descriptor, path = tempfile.mkstemp(prefix="graphopt-", suffix=".so")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(code)
        library = ctypes.CDLL(path)
    finally:
        os.unlink(path)
    return library, lambda: _ctypes.dlclose(library._handle)


def _write_all(descriptor: int, code: memoryview) -> None:
    while code:
        code = code[os.write(descriptor, code) :]


def _is_loaded(path: str) -> bool:
    try:
        handle = _ctypes.dlopen(path, os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    _ctypes.dlclose(handle)
    return True

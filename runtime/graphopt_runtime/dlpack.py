"""Arrays handed over by DLPack (https://dmlc.github.io/dlpack): what a capsule describes, and capsules of our own.

Capsules are read and not consumed: they keep the memory alive, and free it if nobody takes it over.
"""

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""Types of devices."""

KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
"""Codes of types; anything else is told by its number."""

MAJOR = 1
"""The version of the layout below; later ones differ."""

READ_ONLY = 1

_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


class View(NamedTuple):
    """What a capsule describes; `strides` counts elements and is None where they are dense, `start` is an address."""

    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    type: str
    start: int
    is_read_only: bool


def request(value: Any, stream: int) -> Any:
    """The capsule of an array, whose results `stream` then waits for. What `__dlpack__` raises goes through."""
    try:
        return value.__dlpack__(stream=stream, max_version=(MAJOR, 0))
    except TypeError:  # those written before DLPack 1.0
        return value.__dlpack__(stream=stream)


def read(capsule: Any) -> View:
    """What a capsule describes. Raises ValueError for one of another version, or that was used before."""
    if _is_valid(capsule, _VERSIONED):
        managed = ctypes.cast(_pointer(capsule, _VERSIONED), ctypes.POINTER(_ManagedVersioned)).contents
        if managed.major != MAJOR:
            raise ValueError(f"DLPack {managed.major} is not known")
        return _view(managed.tensor, bool(managed.flags & READ_ONLY))
    if not _is_valid(capsule, _PLAIN):
        raise ValueError("this is no capsule of DLPack, or one that was used before")
    return _view(
        ctypes.cast(_pointer(capsule, _PLAIN), ctypes.POINTER(_Managed)).contents.tensor, is_read_only=False
    )


def _view(tensor: _Tensor, is_read_only: bool) -> View:
    shape = tuple(tensor.shape[: tensor.rank])
    strides = tuple(tensor.strides[: tensor.rank]) if tensor.strides else None
    return View(shape, strides, _type_name(tensor), (tensor.data or 0) + tensor.offset, is_read_only)


def _type_name(tensor: _Tensor) -> str:
    kind = KINDS.get(tensor.code, f"type {tensor.code} of DLPack, ")
    name = kind if kind == "bool" else f"{kind}{tensor.bits}"
    return name if tensor.lanes == 1 else f"{name} x {tensor.lanes}"


def capsule(
    shape: tuple[int, ...], dtype: np.dtype[Any], start: int, device: tuple[int, int], owner: object
) -> Any:
    """A capsule of a dense row-major array, which keeps `owner` alive until its taker is done with it."""
    rank = len(shape)
    sizes, strides = (ctypes.c_int64 * rank)(*shape), (ctypes.c_int64 * rank)(*_dense(shape))
    code = next(code for code, kind in KINDS.items() if dtype.name.rstrip("0123456789") == kind)
    tensor = _Tensor(start, *device, rank, code, 8 * dtype.itemsize, 1, sizes, strides, 0)
    managed = _Managed(tensor, None, ctypes.cast(_DELETER, ctypes.c_void_p).value)
    place = ctypes.addressof(managed)
    _LENT[place] = (managed, sizes, strides, owner)
    return _new(place, _PLAIN, _DESTRUCTOR)


def _dense(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


_LENT: dict[int, tuple[Any, ...]] = {}
"""Address of a description -> what it needs until its taker deletes it."""


def _delete(place: int) -> None:
    _LENT.pop(place, None)


def _destroy(untaken: int) -> None:
    """Capsules that were taken over have another name."""
    if _is_valid_at(untaken, _PLAIN):
        _delete(_pointer_at(untaken, _PLAIN))


def _function(name: str, result: Any, *parameters: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *parameters)((name, ctypes.pythonapi))


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_delete)
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy)
for _callback in (_DELETER, _DESTRUCTOR):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))  # takers may outlive this module

_new = _function("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, type(_DESTRUCTOR))
_is_valid = _function("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_is_valid_at = _function("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_pointer = _function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_pointer_at = _function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)

"""Capsules of DLPack: those of others are read, our own are taken over and given back."""

import gc
from typing import Any

import numpy as np
import pytest

from graphopt_runtime import dlpack

DTYPES = ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"]


class Lender:
    """Lends an array on the host by capsules of ours."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0

    def __dlpack__(self, **asked: Any) -> Any:
        array = self.array
        return dlpack.capsule(array.shape, array.dtype, array.ctypes.data, (dlpack.CPU, 0), array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (4, 1, 5)])
def test_arrays_are_described(shape: tuple[int, ...], dtype: str) -> None:
    array = np.zeros(shape, dtype)
    for version in ({}, {"max_version": (1, 0)}):
        view = dlpack.read(array.__dlpack__(**version))
        assert (view.shape, view.type, view.start) == (shape, dtype, array.ctypes.data)


def test_strides_and_offsets_are_told() -> None:
    array = np.zeros((4, 6), np.float32)
    view = dlpack.read(array[1:, ::2].__dlpack__())
    assert (view.shape, view.strides, view.start) == ((3, 3), (6, 2), array.ctypes.data + 24)


def test_read_only_arrays_are_told() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    assert dlpack.read(array.__dlpack__(max_version=(1, 0))).is_read_only


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (4, 1, 5)])
def test_others_take_our_capsules_over(shape: tuple[int, ...], dtype: str) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    taken = np.from_dlpack(Lender(array))
    np.testing.assert_array_equal(taken, array)
    assert taken.dtype == array.dtype
    assert np.may_share_memory(taken, array) or not array.size


def test_torch_takes_our_capsules_over() -> None:
    torch = pytest.importorskip("torch")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    taken = torch.from_dlpack(Lender(array))
    array[0, 0] = 7
    assert taken.tolist() == array.tolist()
    del taken
    gc.collect()
    assert not dlpack._LENT


def test_memory_is_given_back() -> None:
    lender = Lender(np.zeros(3, np.float32))
    untaken, taken = lender.__dlpack__(), np.from_dlpack(lender)
    assert len(dlpack._LENT) == 2
    del untaken
    assert len(dlpack._LENT) == 1
    del taken
    gc.collect()
    assert not dlpack._LENT


def test_capsules_that_were_taken_are_refused() -> None:
    capsule = np.zeros(3, np.float32).__dlpack__()

    class Once:
        def __dlpack_device__(self) -> tuple[int, int]:
            return dlpack.CPU, 0

        def __dlpack__(self, **asked: Any) -> Any:
            return capsule

    np.from_dlpack(Once())
    with pytest.raises(ValueError, match="used before"):
        dlpack.read(capsule)
    with pytest.raises(ValueError, match="no capsule"):
        dlpack.read("an array")


def test_later_versions_are_refused() -> None:
    capsule = np.zeros(3, np.float32).__dlpack__(max_version=(1, 0))
    managed = dlpack._ManagedVersioned.from_address(dlpack._pointer(capsule, b"dltensor_versioned"))
    managed.major, before = 2, managed.major
    with pytest.raises(ValueError, match="DLPack 2 is not known"):
        dlpack.read(capsule)
    managed.major = before


@pytest.mark.parametrize(
    ("code", "bits", "lanes", "name"),
    [
        (4, 16, 1, "bfloat16"),
        (5, 64, 1, "complex64"),
        (2, 32, 4, "float32 x 4"),
        (17, 4, 1, "type 17 of DLPack, 4"),
    ],
)
def test_types_that_no_model_takes_have_names(code: int, bits: int, lanes: int, name: str) -> None:
    capsule = np.zeros(4, np.float32).__dlpack__()
    tensor = dlpack._Managed.from_address(dlpack._pointer(capsule, b"dltensor")).tensor
    tensor.code, tensor.bits, tensor.lanes = code, bits, lanes
    assert dlpack.read(capsule).type == name

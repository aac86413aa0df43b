from typing import Any

import numpy as np
import pytest

from graphopt_runtime import dlpack, gpu
from graphopt_runtime.device_arrays import LEGACY, DeviceArray
from graphopt_runtime.errors import InputError
from graphopt_runtime.tensors import (
    Tensor,
    as_input,
    as_memory,
    check_output,
    refuse_shared_memory,
)


def test_features_of_gpus_are_told_apart() -> None:
    assert gpu.split_features(["avx2", "sm_80"]) == (["avx2"], ["sm_80"])


@pytest.mark.parametrize(
    ("here", "wanted", "reason"),
    [
        (set(), [], None),
        ({"sm_80", "sm_86"}, ["sm_80"], None),
        ({"sm_80"}, ["sm_86"], "a GPU of sm_86; the one here is sm_80"),
        (set(), ["sm_90"], "a GPU of sm_90; there is no NVIDIA GPU here"),
    ],
)
def test_misfits(
    monkeypatch: pytest.MonkeyPatch, here: set[str], wanted: list[str], reason: str | None
) -> None:
    monkeypatch.setattr(gpu, "architectures", lambda: frozenset(here))
    assert gpu.misfit(wanted) == reason


class OnGpu:
    def __init__(
        self, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, start: int = 4096
    ) -> None:
        facts = {"shape": shape, "typestr": "<f4", "data": (start, False), "strides": strides, "version": 3}
        self.__cuda_array_interface__ = facts


X = Tensor("x", (2, 3), np.dtype(np.float32))


def test_arrays_on_a_gpu_are_described() -> None:
    value = OnGpu((2, 3), (12, 4))
    array = as_memory("x", value, X.dtype, LEGACY)
    assert isinstance(array, DeviceArray)
    assert (array.shape, array.dtype, array.start, array.nbytes) == (X.shape, X.dtype, 4096, 24)
    assert array.owner is value


def test_arrays_on_a_gpu_with_gaps_are_refused() -> None:
    with pytest.raises(InputError, match="not contiguous on the GPU"):
        as_memory("x", OnGpu((2, 3), (4, 8)), X.dtype, LEGACY)


def test_arrays_on_a_gpu_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match="dtype float32, the model takes int64"):
        as_memory("x", OnGpu((2, 3)), np.dtype(np.int64), LEGACY)


def test_models_on_cpus_refuse_arrays_on_a_gpu() -> None:
    with pytest.raises(InputError, match="'x' is on a GPU"):
        as_input("x", OnGpu((2, 3)), X.dtype)
    with pytest.raises(InputError, match="'x' is on a GPU"):
        check_output(X, OnGpu((2, 3)))


class Lender:
    """Describes memory of the host as that of another device."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (dlpack.CUDA, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None) -> Any:
        return self.array.__dlpack__()


def test_arrays_of_dlpack_are_described() -> None:
    value = Lender(np.zeros((2, 3), np.float32))
    array = as_memory("x", value, X.dtype, LEGACY)
    assert isinstance(array, DeviceArray)
    assert (array.shape, array.dtype, array.start) == (X.shape, X.dtype, value.array.ctypes.data)
    assert array.owner is value


class Careful:
    """One that may not be shared just now."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int | None) -> Any:
        raise BufferError("it requires a gradient")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Lender(np.zeros((3, 2), np.float32).T), "not contiguous on the GPU"),
        (Lender(np.zeros((2, 3), np.float64)), "dtype float64, the model takes float32"),
        (Lender(np.zeros((2, 3), np.float32), (dlpack.CUDA, 1)), "'x' is on GPU 1, the model runs on GPU 0"),
        (Lender(np.zeros((2, 3), np.float32), (10, 0)), r"'x' is on a device of type 10 \(of DLPack\)"),
        (Careful(), "cannot be taken over by DLPack: it requires a gradient"),
    ],
)
def test_arrays_of_dlpack_that_do_not_fit(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_memory("x", value, X.dtype, LEGACY)


def test_types_without_a_name_in_numpy_are_refused() -> None:
    class Brain(Lender):
        def __dlpack__(self, *, stream: int | None) -> Any:
            capsule = super().__dlpack__(stream=stream)
            dlpack._Managed.from_address(dlpack._pointer(capsule, b"dltensor")).tensor.code = 17
            return capsule

    with pytest.raises(InputError, match="has dtype type 17 of DLPack, 32, which no model takes"):
        as_memory("x", Brain(np.zeros((2, 3), np.float32)), X.dtype, LEGACY)


def test_steps_of_axes_of_one_element_do_not_matter() -> None:
    value = Lender(np.zeros((2, 9), np.float32)[:1, :3])
    assert as_memory("x", value, X.dtype, LEGACY).shape == (1, 3)


class Host(Lender):
    """One on the host that knows nothing but DLPack."""

    def __dlpack__(self, **asked: Any) -> Any:
        return self.array.__dlpack__(**asked)


def test_arrays_of_dlpack_on_the_host_are_those_of_the_host() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for taken in (
        as_memory("x", Host(array, (1, 0)), X.dtype, LEGACY),
        as_input("x", Host(array, (1, 0)), X.dtype),
    ):
        assert isinstance(taken, np.ndarray)
        np.testing.assert_array_equal(taken, array)


def test_outputs_that_overlap_inputs_on_a_gpu_are_refused() -> None:
    one, other, apart = (
        check_output(X, OnGpu((2, 3), start=start), stream=LEGACY) for start in (4096, 4112, 8192)
    )
    refuse_shared_memory([X], [one], [apart])
    with pytest.raises(InputError, match="shares memory"):
        refuse_shared_memory([X], [one], [other])

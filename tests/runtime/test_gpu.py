import numpy as np
import pytest

from graphopt_runtime import gpu
from graphopt_runtime.errors import InputError
from graphopt_runtime.tensors import (
    DeviceArray,
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
    array = as_memory("x", value, X.dtype)
    assert isinstance(array, DeviceArray)
    assert (array.shape, array.dtype, array.start, array.nbytes) == (X.shape, X.dtype, 4096, 24)
    assert array.owner is value


def test_arrays_on_a_gpu_with_gaps_are_refused() -> None:
    with pytest.raises(InputError, match="not contiguous on the GPU"):
        as_memory("x", OnGpu((2, 3), (4, 8)), X.dtype)


def test_arrays_on_a_gpu_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match="dtype float32, the model takes int64"):
        as_memory("x", OnGpu((2, 3)), np.dtype(np.int64))


def test_models_on_cpus_refuse_arrays_on_a_gpu() -> None:
    with pytest.raises(InputError, match="'x' is on a GPU"):
        as_input("x", OnGpu((2, 3)), X.dtype)
    with pytest.raises(InputError, match="'x' is on a GPU"):
        check_output(X, OnGpu((2, 3)))


def test_outputs_that_overlap_inputs_on_a_gpu_are_refused() -> None:
    one, other, apart = (
        check_output(X, OnGpu((2, 3), start=start), on_gpu=True) for start in (4096, 4112, 8192)
    )
    refuse_shared_memory([X], [one], [apart])
    with pytest.raises(InputError, match="shares memory"):
        refuse_shared_memory([X], [one], [other])

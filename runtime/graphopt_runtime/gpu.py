"""Which GPUs NVIDIA's driver finds on this machine, asked of the driver itself."""

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

DRIVER = "libcuda.so.1"
PREFIX = "sm_"
"""How the architectures of GPUs begin among the features of a build."""

_MAJOR, _MINOR = 75, 76
"""The driver's numbers of the attributes for both parts of a compute capability."""


@cache
def architectures() -> frozenset[str]:
    """The architectures whose code runs on the first GPU: its own, and older ones of the same generation. Empty without one."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return frozenset()
    device = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return frozenset()
    major, minor = (_attribute(driver, number, device) for number in (_MAJOR, _MINOR))
    return frozenset(f"{PREFIX}{major}{older}" for older in range(minor + 1))


def _attribute(driver: ctypes.CDLL, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def split_features(features: list[str]) -> tuple[list[str], list[str]]:
    """The features of the CPU, and those of a GPU."""
    of_gpu = [feature for feature in features if feature.startswith(PREFIX)]
    return [feature for feature in features if feature not in of_gpu], of_gpu


def is_needed(build: Mapping[str, Any]) -> bool:
    """Whether what a build says of its target names a GPU."""
    return bool(split_features(list(build["target"].get("features", ())))[1])


def misfit(features: list[str]) -> str | None:
    """Why no GPU here runs code for these architectures; None where one does, or none is needed."""
    if not features or set(features) <= architectures():
        return None
    found = max(architectures(), default="")
    wanted = ", ".join(features)
    return f"a GPU of {wanted}; " + (f"the one here is {found}" if found else "there is no NVIDIA GPU here")


def advice() -> str:
    """What to do with code for other GPUs than the one here, if there is one."""
    if architectures():
        return "compile it again with --target cuda on this machine, or for its architecture"
    return "run it where there is one, or compile it again for a CPU"

"""A GPU for the tests: the one of this machine, or an emulated one."""

from collections.abc import Iterator

import pytest

from graphopt.backends.cuda.nvcc import find_nvcc
from graphopt.backends.cuda.tensor_tiles import TensorTile
from graphopt.backends.schedules.choice import Rules
from graphopt.backends.schedules.tensor_product import config_of
from graphopt.backends.targets import TARGETS, Target, find_target
from graphopt.errors import TargetError
from tests.backends.cuda import emulation


@pytest.fixture(scope="module")
def gpu() -> Iterator[Target]:
    """The target of a GPU that runs here."""
    try:
        found = find_target("cuda")
    except TargetError:
        found = None
    if found is not None and find_nvcc() is not None:
        yield found
        return
    if reason := emulation.missing():
        pytest.skip(f"no NVIDIA GPU, and {reason}")
    with emulation.emulated_gpu():
        yield TARGETS["cuda:sm_90"]


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TensorTile, int]]:
    """Tiles and parts that kernels get, one after the other."""
    waiting: list[tuple[TensorTile, int]] = []
    monkeypatch.setattr(Rules, "choose", lambda self, *of: config_of(*waiting.pop(0)))
    return waiting

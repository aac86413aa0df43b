"""Products with weights of few values, which are looked up in registers: right, small, and only where that pays."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.api import build
from graphopt.backends.compiler import compile_models
from graphopt.backends.execution import cannot_run
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.lookup import VECTORS, code_bits, pack_codes
from graphopt.backends.schedules.choice import FAMILIES, Recorder, Rules, Usable
from graphopt.backends.schedules.lookup import looks_up
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import find_target
from tests.backends.lower.harness import Nodes, assert_same, compiled, fixed
from tests.conftest import reference

RNG = np.random.default_rng(3)

TARGET = find_target("x86-64-v4")


class LookingUp(Rules):
    """Chooses the schedule of the number `rank` among those that look weights up, where a workload has any."""

    def __init__(self, rank: int) -> None:
        self.rank, self.found = rank, 0

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        candidates = [config for _, config in FAMILIES[workload.family].candidates(workload, core)]
        found = [config for config in candidates if looks_up(config)]
        self.found += bool(found)
        return found[min(self.rank, len(found) - 1)] if found else super().choose(workload, core, usable)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def clustered(values: int, *shape: int) -> np.ndarray:
    """Weights of so many values, all of which there are where there is room."""
    codes = RNG.permutation(np.resize(np.arange(values), int(np.prod(shape))))
    return normal(values)[codes].reshape(shape)


def recorded(nodes: Nodes, target: str = "x86-64-v4") -> list[str]:
    model, recorder = ir.from_proto(nodes.proto()), Recorder()
    models.normalise(model)
    compile_models([model], find_target(target), schedules=recorder)
    return [str(workload) for workload in recorder.workloads]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("values", [1, 2, 16, 17, 32])
def test_it_is_what_onnx_runtime_computes(values: int, rank: int) -> None:
    if (reason := cannot_run(TARGET)) is not None:
        pytest.skip(reason)
    nodes = Nodes()
    for m, k, n in [(1, 300, 70), (1, 7, 129), (2, 33, 256), (2, 70, 5)]:
        nodes.add("MatMul", normal(m, k), fixed(clustered(values, k, n)))
        nodes.add("Gemm", normal(m, k), fixed(clustered(values, n, k)), fixed(normal(n)), transB=1)
    model, schedules = ir.from_proto(nodes.proto()), LookingUp(rank)
    expected = reference(model, nodes.feeds)
    models.normalise(model)
    found = compiled(model, nodes.feeds, TARGET, schedules)
    assert schedules.found == len(nodes.nodes)
    for value, got, want in zip(model.graph.outputs, found, expected, strict=True):
        assert_same(value.name or "", got, want)


@pytest.mark.parametrize(("values", "bits"), [(16, 4), (32, 8)])
def test_rules_look_up_what_is_read_once_and_store_codes(values: int, bits: int) -> None:
    nodes = Nodes()
    nodes.add("MatMul", normal(1, 512), fixed(clustered(values, 512, 512)))
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    stored = len(compile_models([model], TARGET, schedules=Rules()).weights)
    assert stored < 1.1 * 512 * 512 * bits / 8


def test_codes_that_take_less_than_their_bits_are_stored_so(tmp_path: Path) -> None:
    """24 values are worth 4.6 bits, and lie in memory as 8."""
    nodes = Nodes()
    nodes.add("MatMul", normal(1, 512), fixed(clustered(24, 512, 512)))
    found = build(ir.from_proto(nodes.proto()), tmp_path / "a.gopt", "x86-64-v4", check=False)
    assert found.bytes < 512 * 512 * 5 / 8 + 30_000


@pytest.mark.parametrize(
    ("values", "rows", "target"), [(33, 1, "x86-64-v4"), (16, 3, "x86-64-v4"), (16, 1, "x86-64-v3")]
)
def test_other_products_stay_what_they_are(values: int, rows: int, target: str) -> None:
    """Too many values, too many rows, a machine that cannot."""
    nodes = Nodes()
    nodes.add("MatMul", normal(rows, 64), fixed(clustered(values, 64, 64)))
    assert recorded(nodes, target) == [f"gemm batch=1 m={rows} n=64 k=64 packed=1"]


def test_codes_lie_in_words() -> None:
    codes = RNG.integers(0, 16, (3, 200)).astype(np.uint8)
    words = pack_codes(codes, 4, 16).view("<u4")
    assert words.shape == (2, 3, 1, 16)
    column = 128 + 5 * 16 + 7
    assert column >= 200 or words[1, 2, 0, 7] >> 20 & 15 == codes[2, column]
    assert words[0, 1, 0, 3] >> 12 & 15 == codes[1, 3 * 16 + 3]
    assert [code_bits(count, 16) for count in (2, 16, 17, 32, 33)] == [4, 4, 8, 8, None]
    assert VECTORS * 16 == 128

"""Products and convolutions that skip vectors of zeros, against ONNX Runtime, and when they are not chosen."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.compiler import compile_models
from graphopt.backends.execution import cannot_run
from graphopt.backends.kernels.core import Core
from graphopt.backends.schedules.choice import FAMILIES, Recorder, Rules, Schedules, Usable
from graphopt.backends.schedules.sparse import is_sparse
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import Target, find_target, native
from tests.backends.lower.harness import Nodes, assert_same, compiled, fixed
from tests.conftest import reference

RNG = np.random.default_rng(0)

TARGETS = ["x86-64-v4", "x86-64-v3", "x86-64-v2", "aarch64"]
SHARES = (0.3, 0.02, 0.0)


class Skipping(Rules):
    """Chooses the sparse schedule of the number `rank` among those of a workload, where it has any."""

    def __init__(self, rank: int) -> None:
        self.rank, self.found = rank, 0

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        candidates = [config for _, config in FAMILIES[workload.family].candidates(workload, core)]
        sparse = [config for config in candidates if is_sparse(config)]
        self.found += bool(sparse)
        return sparse[min(self.rank, len(sparse) - 1)] if sparse else super().choose(workload, core, usable)


class Multiplying(Rules):
    """Never chooses a sparse schedule."""

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        return super().choose(workload, core, lambda config: usable(config) and not is_sparse(config))


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def matrix(rows: int, columns: int, share: float) -> np.ndarray:
    """With a share of the vectors of 16 columns that are not zero."""
    kept = RNG.random((rows, -(-columns // 16))) < share
    return normal(rows, columns) * np.repeat(kept, 16, axis=1)[:, :columns]


def filters(shape: tuple[int, int, int, int], share: float) -> np.ndarray:
    """The same of filters, channels and taps."""
    rows = matrix(int(np.prod(shape[1:])), shape[0], share)
    return np.ascontiguousarray(rows.T).reshape(shape)


def check(nodes: Nodes, name: str, rank: int) -> None:
    target = find_target(name)
    if (reason := cannot_run(target)) is not None:
        pytest.skip(reason)
    model, schedules = ir.from_proto(nodes.proto()), Skipping(rank)
    expected = reference(model, nodes.feeds)
    models.normalise(model)
    found = compiled(model, nodes.feeds, target, schedules)
    assert schedules.found == len(nodes.nodes)
    for value, got, want in zip(model.graph.outputs, found, expected, strict=True):
        assert_same(value.name or "", got, want)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rank", [0, 3, 100])
def test_products(name: str, rank: int) -> None:
    nodes = Nodes()
    for share in SHARES:
        for m, k, n in [(1, 300, 70), (7, 33, 16), (40, 64, 100), (3, 70, 5), (61, 20, 33)]:
            nodes.add("MatMul", normal(2, m, k), fixed(matrix(k, n, share)))
            nodes.add("Gemm", normal(m, k), fixed(matrix(k, n, share).T.copy()), fixed(normal(n)), transB=1)
    check(nodes, name, rank)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rank", [0, 5])
def test_convolutions(name: str, rank: int) -> None:
    nodes = Nodes()
    for share in SHARES:
        for image, count, kernel, options in [
            ((2, 32, 9, 7), 48, 1, {}),
            ((1, 33, 9, 8), 40, 3, {"pads": [1, 0, 2, 1]}),
            ((1, 32, 11, 12), 48, 3, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
            ((1, 32, 9, 9), 48, 3, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
            ((1, 64, 6, 9), 64, 3, {"group": 2}),
        ]:
            weights = filters((count, image[1] // int(options.get("group", 1)), kernel, kernel), share)
            nodes.add("Conv", normal(*image), fixed(weights), fixed(normal(count)), **options)
    check(nodes, name, rank)


def test_what_is_skipped_is_zero_whatever_it_meets() -> None:
    weights, x = matrix(40, 32, 1.0), normal(3, 40)
    weights[5], x[:, 5] = 0, np.inf
    weights[10:] = 0
    nodes = Nodes()
    nodes.add("MatMul", x, fixed(weights))
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    (found,) = compiled(model, nodes.feeds, native(), Skipping(0))
    np.testing.assert_allclose(found, np.delete(x, 5, 1) @ np.delete(weights, 5, 0), rtol=1e-4, atol=1e-5)


def weights_bytes(nodes: Nodes, schedules: Schedules, target: Target) -> int:
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    return len(compile_models([model], target, schedules=schedules).weights)


def test_only_what_is_not_zero_is_stored() -> None:
    nodes, target = Nodes(), find_target("x86-64-v4")
    nodes.add("MatMul", normal(8, 512), fixed(matrix(512, 256, 0.25)))
    dense, sparse = (weights_bytes(nodes, each, target) for each in (Multiplying(), Rules()))
    assert sparse < 0.3 * dense


def recorded(nodes: Nodes) -> list[str]:
    model, recorder = ir.from_proto(nodes.proto()), Recorder()
    models.normalise(model)
    compile_models([model], find_target("x86-64-v4"), schedules=recorder)
    return [str(workload) for workload in recorder.workloads]


def test_zeros_here_and_there_change_nothing() -> None:
    """No vector as a whole is zero: the workload is that of a product without zeros."""
    nodes, weights = Nodes(), normal(64, 64)
    weights[RNG.random(weights.shape) < 0.5] = 0
    nodes.add("MatMul", normal(4, 64), fixed(weights))
    assert recorded(nodes) == ["gemm batch=1 m=4 n=64 k=64 packed=1"]


def test_weights_that_are_computed_have_no_zeros_to_skip() -> None:
    nodes = Nodes()
    nodes.add("MatMul", normal(4, 64), normal(64, 64))
    assert recorded(nodes) == ["gemm batch=1 m=4 n=64 k=64 packed=0"]

"""Gather, Scatter and OneHot in all forms against ONNX Runtime."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.kernels.core import AVX512
from graphopt.backends.lower.graph import lower_model
from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, compiled, fixed
from tests.conftest import make_model

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_gather() -> None:
    nodes = Nodes()
    for dtype in (np.float32, np.float64, np.int8, np.int64, bool):
        nodes.add("Gather", floats(7, 5).astype(dtype), np.array([[0, -1, 3], [6, 2, 2]]))
    rows = nodes.add("Gather", floats(50, 37), RNG.integers(0, 50, (2, 9)).astype(np.int32))
    nodes.add("Relu", rows)
    nodes.add("Gather", floats(3, 1, 17), np.array(-2), axis=2)
    nodes.add("Gather", fixed(floats(11, 16)), np.array([10, 0]), axis=0)
    nodes.check()


def test_gather_elements_and_slices() -> None:
    nodes = Nodes()
    nodes.add("GatherElements", floats(3, 5, 7), RNG.integers(-5, 5, (3, 4, 6)), axis=1)
    nodes.add("GatherElements", floats(17), RNG.integers(0, 17, (19,)), axis=-1)
    nodes.add("GatherND", floats(3, 5, 17), RNG.integers(-3, 3, (4, 1)))
    nodes.add("GatherND", floats(3, 5, 17), RNG.integers(0, 5, (3, 2, 1)), batch_dims=1)
    nodes.add("GatherND", floats(2, 3, 4), RNG.integers(0, 2, (6, 3)))
    nodes.check()


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter(reduction: str) -> None:
    nodes = Nodes()
    repeated = RNG.integers(-5, 5, (3, 4)) if reduction != "none" else np.array([[0, 1, 2, 3]] * 3)
    for dtype in (np.float32, np.int32, np.int64):
        x, updates = (floats(3, 5) * 9).astype(dtype), (floats(3, 4) * 9).astype(dtype)
        nodes.add("ScatterElements", x, repeated, updates, axis=1, reduction=reduction)
    where = np.array([[0], [2]]) if reduction == "none" else np.array([[2], [-1]])
    nodes.add("Neg", nodes.add("ScatterND", floats(3, 5, 17), where, floats(2, 5, 17), reduction=reduction))
    nodes.add("ScatterND", floats(4, 3), np.array([[1, 1], [3, 0]]), floats(2), reduction=reduction)
    nodes.check()


def test_one_hot() -> None:
    nodes = Nodes()
    values = np.array([-1.5, 2.5], np.float32)
    indices = np.array([[0, 3, -1], [-4, 4, 99]])
    nodes.add("OneHot", indices, fixed(np.array([4])), values)
    nodes.add("OneHot", indices, fixed(np.array([4])), np.array([0, 7]), axis=0)
    nodes.check()


def test_indices_never_leave_the_tensor() -> None:
    model = make_model("agraph (float[4] x, int64[2] i) => (float[2] y) { y = Gather(x, i) }")
    feeds = {"x": np.arange(4, dtype=np.float32), "i": np.array([1 << 20, -(1 << 20)])}
    np.testing.assert_array_equal(compiled(model, feeds)[0], [3, 0])


def test_compress_needs_its_condition_at_compile_time() -> None:
    graph = "agraph (float[3, 2] x) => (float[2, 2] y) { y = Compress<axis = 0>(x, c) }"
    model = make_model(graph, c=np.array([True, False, True]))
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(compiled(model, {"x": x})[0], x[[0, 2]])
    assert_refused(make_model(graph.replace("x)", "x, bool[3] c)", 1)), "condition is computed at run time")
    assert_refused(
        make_model("agraph (float[3] x) => (int64[1, 3] y) { y = NonZero(x) }"), "decides the output's shape"
    )


def assert_refused(model: ir.Model, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        lower_model(model, AVX512)

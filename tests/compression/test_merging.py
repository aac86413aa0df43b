"""`prune --share`: what is told by data and by weights, what it costs, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.compression.merging import merge
from graphopt.compression.pruning import PruningResult
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.model import save
from tests.cli.conftest import invoke, invoke_json
from tests.conftest import make_model, reference
from tests.passes.prune.checking import random

RNG = np.random.default_rng(5)


def perceptron(near: float = 0.0) -> ir.Model:
    """Six neurons: the fourth is the first one but for `near`, the last is -2 times the second before the ReLU of neither."""
    weights, bias = random(8, 6), random(6)
    weights[:, 3], bias[3] = weights[:, 0] + near * random(8), bias[0]
    text = "agraph (float[N,8] x) => (float[N,4] y) { a = Gemm(x, w, c) b = Relu(a) y = MatMul(b, v) }"
    return make_model(text, w=weights, c=bias, v=random(6, 4))


def lstm() -> ir.Model:
    """Eight cells of which the last two are the first two."""

    def cells(array: np.ndarray, axis: int) -> np.ndarray:
        gates = np.moveaxis(array, axis, 0).reshape(4, 8, -1)
        gates[:, 6:] = gates[:, :2]
        return np.ascontiguousarray(np.moveaxis(gates.reshape(32, *np.delete(array.shape, axis)), 0, axis))

    text = """agraph (float[5,2,3] x) => (float[2,4] y) {
        seq, h, c = LSTM <hidden_size = 8> (x, w, r, b) s = Squeeze(h, zero) y = MatMul(s, v) }"""
    return make_model(
        text,
        w=cells(random(1, 32, 3), 1),
        r=cells(random(1, 32, 8), 1) * np.float32(0.3),
        b=np.concatenate([cells(random(1, 32), 1), np.zeros((1, 32), np.float32)], axis=1),
        v=random(8, 4),
        zero=np.array([0]),
    )


def rows(count: int = 64) -> Dataset:
    return Dataset({"x": RNG.standard_normal((count, 8)).astype(np.float32)})


def same(done: PruningResult, model: ir.Model, feeds: dict[str, np.ndarray], error: float = 1e-5) -> None:
    for wanted, given in zip(reference(model, feeds), reference(done.model, feeds), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=0, atol=error * np.abs(wanted).max())


@pytest.mark.parametrize("calib", [None, rows()], ids=["weights", "data"])
def test_equal_neurons_become_one(calib: Dataset | None, tmp_path: Path) -> None:
    model = perceptron()
    done = merge(model, 0, calib, tmp_path / "small.onnx")
    assert list(done.groups.values()) == [(6, 5)]
    same(done, model, {"x": random(3, 8)})
    onnx.checker.check_model(tmp_path / "small.onnx", full_check=True)
    assert (done.steps["shared"].evaluation is None) == (calib is None)


@pytest.mark.parametrize("calib", [None, rows()], ids=["weights", "data"])
def test_those_that_differ_stay_without_tolerance(calib: Dataset | None) -> None:
    model = perceptron(near=0.01)
    assert list(merge(model, 0, calib).groups.values()) == [(6, 6)]
    assert merge(model, 0, calib).warnings == ["no neurons are that much alike: nothing was merged"]
    done = merge(model, 0.1, calib)
    assert list(done.groups.values()) == [(6, 5)]
    same(done, model, {"x": random(3, 8)}, error=0.05)


def test_cells_that_are_equal_become_one() -> None:
    model = lstm()
    done = merge(model, 1e-4, Dataset({"x": random(50, 2, 3)}))
    assert list(done.groups.values()) == [(8, 6)]
    same(done, model, {"x": random(5, 2, 3, seed=1)})


def test_integers_stay_and_the_reason_is_told() -> None:
    text = "agraph (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w) b = Relu(a) d = DequantizeLinear(q, s) y = MatMul(b, d) }"
    weights = np.repeat(random(8, 1), 6, axis=1)
    levels = RNG.integers(-9, 9, (6, 4)).astype(np.int8)
    done = merge(make_model(text, w=weights, q=levels, s=np.float32(0.1)), 0)
    assert done.groups == {}
    assert any("holds no floats" in each.reason for each in done.whole)


@pytest.mark.parametrize("tolerance", [-0.1, 1, float("nan")])
def test_tolerances_that_make_no_sense(tolerance: float, tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match="give at least 0 and less than 1"):
        merge(perceptron(), tolerance, None, tmp_path / "never.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_merges_and_tells(tmp_path: Path) -> None:
    save(perceptron(), tmp_path / "model.onnx")
    done = invoke("prune", tmp_path / "model.onnx", "--share", 0, "-o", tmp_path / "small.onnx")
    assert "left by sharing" in done.stdout
    content = invoke_json("prune", tmp_path / "model.onnx", "--share", 0, "-o", tmp_path / "small.onnx")
    assert list(content["groups"].values()) == [{"before": 6, "after": 5}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--share", 2], "give at least 0 and less than 1"),
        (["--share", 0.1, "--ratio", 0.5], "give one of"),
        (["--share", 0.1, "--no-correct"], "--correct: not with --share"),
    ],
)
def test_bad_requests(options: list[Any], message: str, tmp_path: Path) -> None:
    save(perceptron(), tmp_path / "model.onnx")
    done = invoke("prune", tmp_path / "model.onnx", *options, "-o", tmp_path / "never.onnx", code=2)
    assert message in done.stderr
    assert not (tmp_path / "never.onnx").exists()

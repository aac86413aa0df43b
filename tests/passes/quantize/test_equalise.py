"""Channels between convolutions evened out and biases corrected: exact where they have to be, and where they must not fire."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model import edit
from graphopt.model.inference import infer_shapes
from graphopt.passes.quantize import correct
from graphopt.passes.quantize.equalise import equalise, pairs
from graphopt.passes.quantize.plan import make_plan
from graphopt.passes.quantize.qdq import correct_biases
from tests.conftest import make_model, reference

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 4, 8, 8)).astype(np.float32)
WEIGHTS = {
    "w": RNG.standard_normal((6, 4, 3, 3)).astype(np.float32),
    "b": RNG.standard_normal(6).astype(np.float32),
    "v": RNG.standard_normal((5, 6, 1, 1)).astype(np.float32),
    "d": RNG.standard_normal((6, 1, 3, 3)).astype(np.float32),
    "g": RNG.standard_normal((4, 3, 1, 1)).astype(np.float32),
}
WEIGHTS["w"][2] *= 100
HEAD = "agraph (float[2,4,8,8] x) => (float[N,C,H,W] y)"


def model(body: str) -> ir.Model:
    made = make_model(f"{HEAD} {{ {body} }}", 18, **WEIGHTS)
    infer_shapes(made)
    return made


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("a = Conv(x, w, b) r = Relu(a) y = Conv(r, v)", 1),
        ("a = Conv(x, w, b) y = Conv(a, v)", 1),
        ("a = Conv(x, w) r = LeakyRelu(a) p = MaxPool<kernel_shape = [2, 2]>(r) y = Conv(p, v)", 1),
        ("a = Conv(x, w, b) r = Relu(a) s = Conv<group = 6>(r, d) t = Relu(s) y = Conv(t, v)", 2),
        ("a = Conv(x, w, b) r = Relu(a) y = Conv<group = 2>(r, g)", 1),
    ],
    ids=["Relu", "nothing between", "pooled", "depthwise", "grouped"],
)
def test_results_stay_and_ranges_meet(body: str, count: int) -> None:
    graph = model(body)
    [before] = reference(graph, {"x": X})
    assert equalise(graph, make_plan(graph.graph)) == count
    [after] = reference(graph, {"x": X})
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    first = edit.constant(next(iter(graph.graph)).inputs[1])
    assert first is not None
    assert np.abs(first[2]).max() < np.abs(WEIGHTS["w"][2]).max() / 2


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv(x, w, b) r = Sigmoid(a) y = Conv(r, v)",
        "a = Conv(x, w, b) c = Conv(a, v) s = ReduceMean(a) y = Add(c, s)",
        "a = Conv(x, w, b) r = Relu(a) s = Conv<group = 6>(r, d, b) t = Sigmoid(s) y = Conv(t, v)",
    ],
    ids=["not homogeneous", "read twice", "a shared bias"],
)
def test_what_is_left_alone(body: str) -> None:
    assert list(pairs(make_plan(model(body).graph))) == []


def test_means_of_convolutions_and_products() -> None:
    grouped = make_model(f"{HEAD} {{ y = Conv<group = 2>(x, w) }}", 18, w=WEIGHTS["w"][:, :2, :1, :1].copy())
    node = next(iter(grouped.graph))
    change, means = WEIGHTS["w"][:, :2, :1, :1], np.arange(4.0)
    expected = [float(change[o, :, 0, 0] @ means[2 * (o // 3) : 2 * (o // 3) + 2]) for o in range(6)]
    np.testing.assert_allclose(correct.shift(node, change, means), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    ["y = Conv(x, w, b)", "y = Conv(x, w)"],
    ids=["with a bias", "without"],
)
def test_the_mean_of_the_error_goes_into_the_bias(body: str) -> None:
    graph = model(body)
    means = np.ones(4)
    assert correct_biases(graph, make_plan(graph.graph), lambda node: means) == 1
    node = next(iter(graph.graph))
    bias = edit.constant(node.inputs[2])
    assert bias is not None
    before = WEIGHTS["b"] if "b)" in body else np.zeros(6, np.float32)
    assert 0 < np.abs(bias - before).max() < 1


def test_products_have_theirs_in_the_sum_behind() -> None:
    text = "agraph (float[3,6] x) => (float[3,5] y) { a = MatMul(x, w) y = Add(a, b) }"
    matrix = RNG.standard_normal((6, 5)).astype(np.float32)
    graph = make_model(text, 18, w=matrix, b=np.zeros(5, np.float32))
    assert correct_biases(graph, make_plan(graph.graph), lambda node: np.ones(6)) == 1
    alone = make_model("agraph (float[3,6] x) => (float[3,5] y) { y = MatMul(x, w) }", 18, w=matrix)
    assert correct_biases(alone, make_plan(alone.graph), lambda node: np.ones(6)) == 0
    assert correct_biases(alone, make_plan(alone.graph), lambda node: None) == 0

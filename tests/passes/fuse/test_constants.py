"""Constants in a row become one, unless that loses numbers or enlarges the model."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, reasons

RNG = np.random.default_rng(0)
ROW, COLUMN = RNG.standard_normal(4).astype(np.float32), RNG.standard_normal((6, 1)).astype(np.float32)
WIDE = np.ones((1, 2000), np.float32)
TALL = np.ones((2000, 1), np.float32)


def chain(body: str, **constants: float | np.ndarray) -> ir.Model:
    arrays = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    return make_model(f"agraph (float[6,4] x) => (float[6,4] y) {{ {body} }}", 17, **arrays)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Mul(x, p) y = Mul(q, a)", "Mul"),
        ("a = Div(x, p) y = Mul(a, q)", "Mul"),
        ("a = Mul(x, p) y = Div(a, q)", "Mul"),
        ("a = Add(x, p) y = Sub(a, q)", "Add"),
        ("a = Sub(x, p) y = Add(a, q)", "Add"),
    ],
)
def test_two_constants_become_one(body: str, left: str) -> None:
    graph = chain(body, p=ROW, q=2.5)
    fuse(graph)
    assert ops(graph) == {left: 1}


@pytest.mark.parametrize("body", ["a = Mul(x, p) y = Div(q, a)", "a = Add(x, p) y = Sub(q, a)"])
def test_a_constant_on_the_left_stays(body: str) -> None:
    graph = chain(body, p=ROW + 3, q=2.5)
    fuse(graph)
    assert sum(ops(graph).values()) == 2


def test_a_product_larger_than_its_factors_is_refused() -> None:
    text = "agraph (float[2000,2000] x) => (float[2000,2000] y) { a = Mul(x, p) y = Mul(a, q) }"
    outcome = fuse(make_model(text, 17, p=WIDE, q=TALL))
    assert reasons(outcome, "constant factors") == [
        "the product of the constants would be larger than they are"
    ]


def test_a_sum_larger_than_its_summands_is_refused() -> None:
    text = "agraph (float[2000,2000] x) => (float[2000,2000] y) { a = Add(x, p) y = Add(a, q) }"
    outcome = fuse(make_model(text, 17, p=WIDE, q=TALL))
    assert reasons(outcome, "constant summands") == ["the sum of the constants would be larger than they are"]


@pytest.mark.parametrize(("p", "q"), [(1e-30, 1e-30), (1e30, 1e30)])
def test_a_product_out_of_range_is_refused(p: float, q: float) -> None:
    outcome = fuse(chain("a = Mul(x, p) y = Mul(a, q)", p=p, q=q))
    assert reasons(outcome, "constant factors") == ["the product of the constants is out of range"]


def test_summands_that_round_are_refused() -> None:
    outcome = fuse(chain("a = Add(x, p) y = Sub(a, q)", p=2.0**23, q=2.0**23))
    assert reasons(outcome, "constant summands") == ["the constants cancel, which may be there to round"]


def products(scale: np.ndarray, body: str = "", outputs: str = "") -> ir.Model:
    text = f"""agraph (float[N,6,4] x) => (float[N,6,3] y, float[N,6,5] z{outputs}) {{
        s = Mul(x, scale) y = MatMul(s, a) z = MatMul(s, b) {body} }}"""
    weights = {
        name: RNG.standard_normal((4, size)).astype(np.float32) for name, size in {"a": 3, "b": 5}.items()
    }
    return make_model(text, 17, scale=scale, **weights)


@pytest.mark.parametrize("scale", [ROW, ROW[:1], np.float32(3), ROW.reshape(1, 1, 4)])
def test_a_factor_goes_into_every_product_after_it(scale: np.ndarray) -> None:
    graph = products(scale)
    assert fuse(graph).applied["factor before MatMul"] == 2
    assert ops(graph) == {"MatMul": 2}


@pytest.mark.parametrize(
    ("scale", "body", "outputs"),
    [
        (COLUMN, "", ""),
        (ROW, "t = Relu(s)", ", float[N,6,4] t"),
        (ROW, "", ", float[N,6,4] s"),
        (ROW, "c = Transpose(a) t = MatMul(s, a) u = Relu(c)", ", float[N,6,3] t, float[3,4] u"),
    ],
    ids=["along another axis", "another user", "an output", "a weight used twice"],
)
def test_a_factor_that_would_stay_anyway_stays(scale: np.ndarray, body: str, outputs: str) -> None:
    graph = products(scale, body, outputs)
    assert not fuse(graph).applied["factor before MatMul"]
    assert ops(graph)["Mul"] == 1


@pytest.mark.parametrize(
    ("zero", "dims", "left"),
    [
        (np.float32(0), "6,4", {"Relu": 1}),
        (np.zeros((6, 4), np.float32), "6,4", {"Relu": 1}),
        (np.zeros((1, 1, 1), np.float32), "1,6,4", {"Add": 1, "Relu": 1}),
    ],
    ids=["scalar", "as large", "adds an axis"],
)
def test_adding_zero_vanishes_unless_it_broadcasts(zero: np.ndarray, dims: str, left: dict[str, int]) -> None:
    text = f"agraph (float[6,4] x) => (float[{dims}] y) {{ a = Add(x, zero) y = Relu(a) }}"
    graph = make_model(text, 17, zero=zero)
    fuse(graph)
    assert ops(graph) == left


def normalised(body: str, opset: int = 17) -> ir.Model:
    statistics = {name: np.abs(RNG.standard_normal(3)).astype(np.float32) + 1 for name in "gsmv"}
    constants = {"k": np.arange(3, dtype=np.float32).reshape(3, 1, 1), "row": np.ones(5, np.float32)}
    text = f"""agraph (float[2,3,4,5] x) => (float[2,3,4,5] y) {{
        n = BatchNormalization(x, g, s, m, v) {body} }}"""
    return make_model(text, opset, **statistics, **constants)


@pytest.mark.parametrize("body", ["y = Mul(n, k)", "y = Add(n, k)"])
def test_a_batch_normalisation_takes_in_a_constant(body: str) -> None:
    graph = normalised(body)
    fuse(graph)
    assert ops(graph) == {"BatchNormalization": 1}


def test_a_batch_normalisation_refuses_another_axis() -> None:
    graph = normalised("y = Mul(n, row)")
    assert reasons(fuse(graph), "constant after BatchNormalization") == ["the constant is not per channel"]


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (17, -1)])
def test_the_logarithm_of_a_softmax(opset: int, axis: int) -> None:
    text = f"agraph (float[2,3,4] x) => (float[2,3,4] y) {{ s = Softmax<axis = {axis}>(x) y = Log(s) }}"
    graph = make_model(text, opset)
    fuse(graph)
    assert ops(graph) == {"LogSoftmax": 1}

"""Layer and RMS normalisation are recognised where their axes are the last ones."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, fuse_for_compile, reasons

RNG = np.random.default_rng(0)
C = {
    "two": np.float32(2),
    "one": np.float32(1),
    "eps": np.float32(1e-5),
    "minus_half": np.float32(-0.5),
    "gamma": RNG.standard_normal(6).astype(np.float32),
    "beta": RNG.standard_normal((1, 1, 6)).astype(np.float32),
    "per_row": RNG.standard_normal((4, 1)).astype(np.float32),
}
START = "m = ReduceMean<axes = [-1]>(x) d = Sub(x, m)"
VARIANCE = "v = ReduceMean<axes = [-1]>(q) w = Add(v, eps)"
AFFINE = "g = Mul(n, gamma) y = Add(g, beta)"
LAYER = {
    "pow, sqrt, div": f"{START} q = Pow(d, two) {VARIANCE} r = Sqrt(w) n = Div(d, r) {AFFINE}",
    "mul, reciprocal": f"{START} q = Mul(d, d) {VARIANCE} r = Sqrt(w) i = Reciprocal(r) n = Mul(i, d) {AFFINE}",
    "pow of minus half": f"{START} q = Mul(d, d) {VARIANCE} i = Pow(w, minus_half) n = Mul(d, i) {AFFINE}",
    "one over": f"{START} q = Mul(d, d) {VARIANCE} r = Sqrt(w) i = Div(one, r) n = Mul(d, i) {AFFINE}",
    "batch norm form": f"{START} q = Mul(d, d) {VARIANCE} r = Sqrt(w) i = Reciprocal(r) g = Mul(i, gamma)"
    " a = Mul(x, g) b = Mul(m, g) c = Sub(beta, b) y = Add(a, c)",
}


def model(body: str, opset: int = 17, shape: str = "2,4,6", dtype: str = "float"):
    text = f"agraph ({dtype}[{shape}] x) => ({dtype}[{shape}] y) {{ {body} }}"
    kind = np.float16 if dtype == "float16" else np.float32
    return make_model(text, opset, **{name: value.astype(kind) for name, value in C.items()})


@pytest.mark.parametrize("body", LAYER.values(), ids=LAYER.keys())
def test_layer_normalisation(body: str) -> None:
    graph = model(body)
    assert fuse(graph).applied["layer norm"] == 1
    assert ops(graph) == {"LayerNormalization": 1}
    assert len(graph.graph[0].inputs) == 3


def test_layer_normalisation_of_an_older_opset() -> None:
    body = LAYER["pow, sqrt, div"]
    assert reasons(fuse(model(body, 13)), "layer norm") == ["LayerNormalization needs opset 17"]
    graph = model(body, 13)
    assert fuse_for_compile(graph).applied["layer norm"] == 1
    assert [node.domain for node in graph.graph] == ["graphopt"]


def test_half_precision() -> None:
    assert (
        fuse_for_compile(model(LAYER["pow, sqrt, div"], 13, dtype="float16"), 2e-2).applied["layer norm"] == 1
    )


def test_several_trailing_axes() -> None:
    body = LAYER["pow, sqrt, div"].replace("[-1]", "[1, 2]")
    graph = model(body)
    assert fuse(graph).applied["layer norm"] == 1
    assert graph.graph[0].attributes["axis"].value == -2


@pytest.mark.parametrize(
    ("body", "shape", "reason"),
    [
        (LAYER["pow, sqrt, div"].replace("[-1]", "[1]"), "2,4,6", "the axes are not the last ones"),
        (
            LAYER["pow, sqrt, div"].replace("axes = [-1]>(q)", "axes = [1, 2]>(q)"),
            "2,4,6",
            "the axes differ, or are not constant",
        ),
        (
            f"{START} q = Mul(d, d) {VARIANCE} r = Sqrt(w) y = Div(d, r)",
            "2,4,N",
            "a normalised dimension is free",
        ),
    ],
)
def test_refusals(body: str, shape: str, reason: str) -> None:
    graph = model(body, shape=shape)
    assert reasons(fuse(graph), "layer norm") == [reason]


def test_a_factor_along_another_axis_stays() -> None:
    body = f"{START} q = Mul(d, d) {VARIANCE} r = Sqrt(w) n = Div(d, r) y = Mul(n, per_row)"
    graph = model(body)
    assert reasons(fuse(graph), "normalisation scale") == ["the factor varies along other axes"]
    assert ops(graph) == {"LayerNormalization": 1, "Mul": 1}


def test_a_summand_along_another_axis_stays() -> None:
    graph = model(f"{START} q = Mul(d, d) {VARIANCE} r = Sqrt(w) n = Div(d, r) y = Add(n, per_row)")
    assert reasons(fuse(graph), "normalisation bias") == ["the summand varies along other axes"]


def test_another_exponent_is_no_variance() -> None:
    body = LAYER["pow, sqrt, div"].replace("Pow(d, two)", "Abs(d)")
    assert not fuse(model(body)).applied["layer norm"]


MEAN_SQUARE = "q = Pow(x, two) v = ReduceMean<axes = [2]>(q) w = Add(v, eps)"


@pytest.mark.parametrize(
    "end",
    [
        "r = Sqrt(w) n = Div(x, r) y = Mul(n, gamma)",
        "r = Sqrt(w) i = Reciprocal(r) n = Mul(x, i) y = Mul(gamma, n)",
    ],
)
def test_rms_normalisation(end: str) -> None:
    graph = model(f"{MEAN_SQUARE} {end}", 13)
    assert fuse_for_compile(graph).applied["rms norm"] == 1
    assert [node.op_type for node in graph.graph] == ["RMSNormalization"]


def test_rms_normalisation_in_its_own_opset() -> None:
    body = MEAN_SQUARE.replace("ReduceMean<axes = [2]>(q)", "ReduceMean(q, last)")
    text = f"agraph (float[2,4,6] x) => (float[2,4,6] y) {{ {body} r = Sqrt(w) y = Div(x, r) }}"
    graph = make_model(text, 23, last=np.array([-1]), **C)
    assert fuse(graph).applied["rms norm"] == 1
    assert ops(graph) == {"RMSNormalization": 1}


def test_l2_normalisation_is_left_alone() -> None:
    body = "q = Mul(x, x) v = ReduceL2<axes = [2]>(q) w = Add(v, eps) r = Sqrt(w) y = Div(x, r)"
    assert not fuse_for_compile(model(body)).applied

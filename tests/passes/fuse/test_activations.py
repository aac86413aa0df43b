"""Activations are recognised however they are written, and nothing else is."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, fuse_for_compile, reasons

C = {
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "three": np.float32(3),
    "six": np.float32(6),
    "zero": np.float32(0),
    "sqrt2": np.float32(1.4142135),
    "rsqrt2": np.float32(0.7071),
    "k": np.float32(0.044715),
    "s": np.float32(0.79788),
    "sixth": np.float32(1 / 6),
    "alpha": np.float32(1.702),
    "big": np.float32(0.8),
}


def model(body: str, opset: int = 18, dtype: str = "float"):
    constants = {name: value.astype(np.float16) if dtype == "float16" else value for name, value in C.items()}
    return make_model(f"agraph ({dtype}[2,5] x) => ({dtype}[2,5] y) {{ {body} }}", opset, **constants)


GELU = {
    "last half": "a = Div(x, sqrt2) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
    "first half": "a = Mul(x, rsqrt2) e = Erf(a) p = Add(one, e) m = Mul(half, x) y = Mul(p, m)",
    "inner half": "a = Mul(rsqrt2, x) e = Erf(a) p = Add(e, one) m = Mul(p, half) y = Mul(m, x)",
    "divided": "a = Div(x, sqrt2) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Div(m, two)",
    "sum of halves": "a = Div(x, sqrt2) e = Erf(a) h = Mul(e, half) p = Add(h, half) y = Mul(x, p)",
}
TANH = {
    "power": "q = Pow(x, three) a = Mul(q, k) b = Add(x, a) c = Mul(b, s) t = Tanh(c) p = Add(t, one)"
    " m = Mul(x, half) y = Mul(m, p)",
    "products": "q = Mul(x, x) r = Mul(q, x) a = Mul(k, r) b = Add(a, x) c = Mul(s, b) t = Tanh(c) p = Add(one, t)"
    " m = Mul(p, x) y = Mul(half, m)",
    "factored": "u = Mul(x, s) v = Mul(x, k) w = Mul(v, x) z = Add(w, one) c = Mul(u, z) t = Tanh(c) p = Add(t, one)"
    " m = Mul(x, half) y = Mul(m, p)",
}


@pytest.mark.parametrize("body", GELU.values(), ids=GELU.keys())
def test_gelu(body: str) -> None:
    graph = model(body, 20)
    assert fuse(graph, 1e-4).applied["gelu"] == 1
    assert ops(graph) == {"Gelu": 1}


@pytest.mark.parametrize("body", TANH.values(), ids=TANH.keys())
def test_gelu_tanh(body: str) -> None:
    graph = model(body, 20)
    assert fuse(graph, 1e-4).applied["gelu tanh"] == 1
    assert ops(graph) == {"Gelu": 1}
    assert graph.graph[0].attributes["approximate"].value == "tanh"


def test_gelu_needs_its_opset_unless_compiled() -> None:
    body = GELU["last half"]
    kept = model(body)
    assert reasons(fuse(kept), "gelu") == ["Gelu needs opset 20"]
    assert "Gelu" not in ops(kept)
    compiled = model(body)
    assert fuse_for_compile(compiled).applied["gelu"] == 1
    assert [(node.domain, node.op_type) for node in compiled.graph] == [("graphopt", "Gelu")]


def test_tanh_gelu_expands() -> None:
    assert fuse_for_compile(model(TANH["power"]), 1e-4).applied["gelu tanh"] == 1


def test_gelu_in_half_precision() -> None:
    graph = model(GELU["last half"], 20, "float16")
    assert fuse(graph, 5e-3).applied["gelu"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "a = Mul(x, big) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        "a = Div(x, sqrt2) e = Erf(a) p = Add(e, half) m = Mul(x, p) y = Mul(m, half)",
        "a = Div(x, sqrt2) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, one)",
        "n = Neg(x) a = Div(n, sqrt2) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
    ],
)
def test_not_gelu(body: str) -> None:
    graph = model(body, 20)
    assert not fuse(graph).applied["gelu"]


def test_gelu_keeps_an_inner_value_that_is_used() -> None:
    text = "agraph (float[2] x) => (float[2] y, float[2] e) { a = Div(x, sqrt2) e = Erf(a) p = Add(e, one)"
    graph = make_model(f"{text} m = Mul(x, p) y = Mul(m, half) }}", 20, **C)
    assert not fuse(graph).applied


def test_a_constant_that_raises_the_rank_is_refused() -> None:
    constants = {**C, "half": np.full((1, 1, 1), 0.5, np.float32)}
    text = f"agraph (float[2,5] x) => (float[1,2,5] y) {{ {GELU['last half']} }}"
    graph = make_model(text, 20, **constants)
    assert reasons(fuse(graph), "gelu") == ["the constants may change the rank"]


@pytest.mark.parametrize(
    ("body", "alpha"),
    [
        ("s1 = Sigmoid(x) y = Mul(x, s1)", None),
        ("s1 = Sigmoid(x) y = Mul(s1, x)", None),
        ("a = Mul(alpha, x) s1 = Sigmoid(a) y = Mul(s1, x)", 1.702),
    ],
)
def test_swish(body: str, alpha: float | None) -> None:
    graph = model(body)
    assert fuse_for_compile(graph).applied["swish"] == 1
    (node,) = graph.graph
    assert (node.domain, node.op_type) == ("graphopt", "Swish")
    found = node.attributes.get("alpha")
    assert (found and found.value) == (alpha and pytest.approx(alpha))


def test_swish_refuses_without_the_opset_and_other_gates_stay() -> None:
    assert reasons(fuse(model("s1 = Sigmoid(x) y = Mul(x, s1)")), "swish") == ["Swish needs opset 24"]
    assert not fuse_for_compile(model("r = Relu(x) s1 = Sigmoid(r) y = Mul(x, s1)")).applied


HARD_SWISH = {
    "relu6": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
    "min max": "a = Add(three, x) l = Max(a, zero) c = Min(l, six) m = Mul(c, sixth) y = Mul(m, x)",
    "hard sigmoid": "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(x, h)",
    "hard sigmoid from parts": "a = Mul(x, sixth) b = Add(a, half) c = Clip(b, zero, one) y = Mul(x, c)",
}


@pytest.mark.parametrize("body", HARD_SWISH.values(), ids=HARD_SWISH.keys())
def test_hard_swish(body: str) -> None:
    graph = model(body)
    assert fuse(graph).applied["hard swish"] == 1
    assert ops(graph) == {"HardSwish": 1}


def test_hard_swish_before_clip_had_inputs() -> None:
    body = "a = Add(x, three) c = Clip<min = 0.0, max = 6.0>(a) m = Mul(x, c) y = Div(m, six)"
    graph = model(body, 10)
    assert fuse_for_compile(graph).applied["hard swish"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)",
        "a = Mul(x, big) b = Add(a, half) y = Clip(b, zero, one)",
    ],
)
def test_hard_sigmoid(body: str) -> None:
    graph = model(body)
    assert fuse(graph).applied["hard sigmoid"] == 1
    assert ops(graph) == {"HardSigmoid": 1}


def test_another_bound_is_not_hard() -> None:
    assert (
        "HardSwish"
        not in fuse(model("a = Add(x, three) c = Clip(a, one, six) m = Mul(x, c) y = Div(m, six)")).applied
    )


@pytest.mark.parametrize("soft", ["p = Softplus(x)", "e = Exp(x) q = Add(e, one) p = Log(q)"])
def test_mish(soft: str) -> None:
    graph = model(f"{soft} t = Tanh(p) y = Mul(x, t)")
    assert fuse(graph).applied["mish"] == 1
    assert ops(graph) == {"Mish": 1}
    assert fuse_for_compile(model(f"{soft} t = Tanh(p) y = Mul(t, x)", 13)).applied["mish"] == 1


@pytest.mark.parametrize("end", ["y = Div(one, p)", "y = Reciprocal(p)"])
def test_sigmoid(end: str) -> None:
    graph = model(f"n = Neg(x) e = Exp(n) p = Add(e, one) {end}")
    assert fuse(graph).applied["sigmoid"] == 1
    assert ops(graph) == {"Sigmoid": 1}

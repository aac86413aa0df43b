"""Factors and transposes move into matrix products."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, fuse_for_compile, reasons

RNG = np.random.default_rng(2)
C = {
    "k": RNG.standard_normal((4, 6)).astype(np.float32),
    "kt": RNG.standard_normal((6, 4)).astype(np.float32),
    "b": RNG.standard_normal(6).astype(np.float32),
}
HEAD = "agraph (float[3,4] x, float[4,3] xt, float[4,6] z, float[6,4] zt) => (float[3,6] y)"


def model(body: str, opset: int = 18, head: str = HEAD):
    return make_model(f"{head} {{ {body} }}", opset, **C)


@pytest.mark.parametrize(
    ("body", "rule", "left"),
    [
        ("y = Gemm<beta = 3.0>(x, z, b)", "gemm bias", []),
        ("y = Gemm<beta = 3.0>(x, z)", "gemm bias", []),
        ("t = Transpose(xt) y = Gemm(t, z)", "transpose into Gemm", ["transA"]),
        ("t = Transpose(zt) y = Gemm(x, t, b)", "transpose into Gemm", ["transB"]),
        ("t = Transpose(x) y = Gemm<transA = 1>(t, z)", "transpose into Gemm", []),
        ("t = Transpose<perm = [1, 0]>(xt) y = MatMul(t, z)", "transpose into MatMul", ["transA"]),
    ],
)
def test_fires(body: str, rule: str, left: list[str]) -> None:
    graph = model(body)
    assert fuse(graph).applied[rule] == 1
    assert ops(graph) == {"Gemm": 1}
    assert list(graph.graph[0].attributes) == left


def test_a_weight_is_rewritten_only_for_the_compiler() -> None:
    body = "y = Gemm<alpha = 0.5, transB = 1>(x, kt, b)"
    assert not fuse(model(body)).modified
    graph = model(body)
    assert fuse_for_compile(graph).applied["gemm weight"] == 1
    assert not graph.graph[0].attributes


def test_transposed_product() -> None:
    head = "agraph (float[2,5,3] p, float[2,3,4] q) => (float[2,5,4] y)"
    body = "a = Transpose<perm = [0, 2, 1]>(q) b1 = Transpose<perm = [0, 2, 1]>(p) m = MatMul(a, b1)"
    graph = model(f"{body} y = Transpose<perm = [0, 2, 1]>(m)", head=head)
    assert fuse(graph).applied["transposed MatMul"] == 1
    assert ops(graph) == {"MatMul": 1}


def test_a_shared_transpose_stays() -> None:
    graph = model("t = Transpose(xt) m = MatMul(t, z) r = Relu(t) n = MatMul(r, z) y = Add(m, n)")
    assert not fuse(graph).applied


def test_a_batched_transpose_stays() -> None:
    head = "agraph (float[2,4,3] p, float[2,4,5] q) => (float[2,3,5] y)"
    assert not fuse(model("t = Transpose<perm = [0, 2, 1]>(p) y = MatMul(t, q)", head=head)).applied


def test_matmul_stays_where_gemm_needs_a_bias() -> None:
    outcome = fuse(model("t = Transpose(xt) y = MatMul(t, z)", 9))
    assert reasons(outcome, "transpose into MatMul") == ["Gemm without bias needs opset 11 and floats"]

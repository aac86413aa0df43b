"""Attention is recognised when it is exactly that."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, fuse_for_compile, reasons

C = {
    "scale": np.float32(0.25),
    "root": np.float32(4),
    "axes": np.array([2]),
    "repeats": np.array([1, 1, 3, 1, 1]),
    "joined": np.array([2, 6, 5, 8]),
}
HEAD = "agraph (float[2,6,4,8] q, float[2,6,5,8] k, float[2,6,5,7] v, float[4,5] m) => (float[2,6,4,7] y)"
KEYS = "t = Transpose<perm = [0, 1, 3, 2]>(k)"
END = "p = Softmax<axis = -1>(z) y = MatMul(p, v)"


def model(body: str, opset: int = 18, head: str = HEAD):
    return make_model(f"{head} {{ {body} }}", opset, **C)


FORMS = {
    "scaled, masked": f"{KEYS} s = MatMul(q, t) a = Mul(s, scale) z = Add(a, m) {END}",
    "divided": f"{KEYS} s = MatMul(q, t) z = Div(s, root) {END}",
    "scaled operands": f"{KEYS} u = Mul(q, scale) w = Div(t, root) s = MatMul(u, w) z = Add(m, s) {END}",
    "not scaled": f"{KEYS} z = MatMul(q, t) {END}",
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS.keys())
def test_attention(body: str) -> None:
    graph = model(body)
    assert fuse_for_compile(graph).applied["attention"] == 1
    assert [(node.domain, node.op_type) for node in graph.graph] == [("graphopt", "Attention")]


def test_attention_of_its_own_opset() -> None:
    graph = model(FORMS["scaled, masked"], 23)
    assert fuse(graph, 1e-4).applied["attention"] == 1
    assert ops(graph) == {"Attention": 1}


def test_attention_needs_its_opset_unless_compiled() -> None:
    assert reasons(fuse(model(FORMS["divided"])), "attention") == ["Attention needs opset 23"]


def test_keys_from_a_sequence_first_layout() -> None:
    head = HEAD.replace("[2,6,5,8] k", "[2,5,6,8] k")
    graph = model(FORMS["divided"].replace("[0, 1, 3, 2]", "[0, 2, 3, 1]"), head=head)
    assert fuse_for_compile(graph).applied["attention"] == 1
    assert [node.op_type for node in graph.graph] == ["Transpose", "Attention"]


def test_repeated_heads_are_not_repeated() -> None:
    head = "agraph (float[2,6,4,8] q, float[2,2,5,8] k, float[2,2,5,8] v, float[4,5] m) => (float[2,6,4,8] y)"
    repeat = " ".join(
        f"{x}1 = Unsqueeze({x}, axes) {x}2 = Expand({x}1, repeats) {x}3 = Reshape({x}2, joined)" for x in "kv"
    )
    body = FORMS["scaled, masked"].replace("(k)", "(k3)").replace("(p, v)", "(p, v3)")
    graph = model(f"{repeat} {body}", head=head)
    assert fuse_for_compile(graph).applied["attention"] == 1
    assert [node.op_type for node in graph.graph] == ["Attention"]


REFUSALS = {
    "not transposed": (
        f"z = MatMul(q, k) {END}",
        HEAD.replace("[2,6,5,8] k", "[2,6,8,5] k"),
        "the keys are not transposed",
    ),
    "broadcast heads": (
        FORMS["divided"],
        HEAD.replace("[2,6,5,8] k", "[2,1,5,8] k"),
        "batch or heads are broadcast, or unknown",
    ),
    "wide mask": (
        FORMS["scaled, masked"],
        HEAD.replace("float[4,5] m", "float[2,6,4,5] m").replace("[2,6,4,8] q", "[2,6,1,8] q"),
        "the mask does not surely broadcast to the scores",
    ),
    "three dimensions": (
        FORMS["divided"].replace("[0, 1, 3, 2]", "[0, 2, 1]"),
        "agraph (float[6,4,8] q, float[6,5,8] k, float[6,5,7] v) => (float[6,4,7] y)",
        "it is not four-dimensional",
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(case: tuple[str, str, str]) -> None:
    body, head, reason = case
    assert reasons(fuse_for_compile(model(body, head=head)), "attention") == [reason]


@pytest.mark.parametrize(
    "body",
    [
        FORMS["divided"].replace("axis = -1", "axis = 2"),
        f"{KEYS} s = MatMul(q, t) z = Mul(s, m) {END}",
        f"{KEYS} s = MatMul(q, t) r = Relu(s) z = Add(r, m) {END}",
    ],
)
def test_something_else_is_not_attention(body: str) -> None:
    outcome = fuse_for_compile(model(body))
    assert not outcome.applied["attention"]

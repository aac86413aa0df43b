"""Products of one value with several matrices become one product where only movement reads the results."""

import numpy as np
import pytest

from graphopt.passes.products import RULE, MergeProducts
from tests.conftest import apply_and_check, make_model, ops

HEAD = "agraph (float[2,3,4] x) => (float[2,3,2,3] p, float[2,5,3] q) "
WEIGHTS = {"u": (4, 6), "v": (4, 5), "b": (6,), "c": (5,)}

MERGED = [
    ("no bias", "s = MatMul(x, u) t = MatMul(x, v)", {"MatMul": 1, "Split": 1}),
    (
        "two biases",
        "k = MatMul(x, u) s = Add(k, b) l = MatMul(x, v) t = Add(c, l)",
        {"MatMul": 1, "Add": 1, "Split": 1},
    ),
    (
        "one bias",
        "s = MatMul(x, u) l = MatMul(x, v) t = Add(l, c)",
        {"MatMul": 1, "Add": 1, "Split": 1},
    ),
]

REFUSED = [
    ("another value", "y = Relu(x) s = MatMul(x, u) t = MatMul(y, v)"),
    ("an elementwise reader", "s = MatMul(x, u) l = MatMul(x, v) t = Relu(l)"),
    ("an addend that is computed", "s = MatMul(x, u) l = MatMul(x, v) m = Neg(c) t = Add(l, m)"),
    ("one bias for all columns", "s = MatMul(x, u) l = MatMul(x, v) n = ReduceSum(c) t = Add(l, n)"),
]

TAIL = "p = Reshape(s, ps) q = Transpose<perm = [0, 2, 1]>(t) }"


def weights(*names: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(WEIGHTS[name]).astype(np.float32) for name in names}


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(
    ("body", "expected"), [case[1:] for case in MERGED], ids=[case[0] for case in MERGED]
)
def test_merges(body: str, expected: dict[str, int], opset: int) -> None:
    shape = np.array([2, 3, 2, 3], np.int64)
    model = make_model(HEAD + "{ " + body + TAIL, opset, **weights(*"uvbc"), ps=shape)
    assert apply_and_check(MergeProducts(), model).applied == {RULE: 1}
    assert ops(model) == {"Reshape": 1, "Transpose": 1, **expected}


@pytest.mark.parametrize("body", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_must_not_merge(body: str) -> None:
    shape = np.array([2, 3, 2, 3], np.int64)
    model = make_model(HEAD + "{ " + body + TAIL, **weights(*"uvbc"), ps=shape)
    assert not apply_and_check(MergeProducts(), model).modified


def test_outputs_of_the_model_stay() -> None:
    text = "agraph (float[2,3,4] x) => (float[2,3,6] s, float[2,5,3] q) { s = MatMul(x, u) t = MatMul(x, v) q = Transpose<perm = [0, 2, 1]>(t) }"
    assert not apply_and_check(MergeProducts(), make_model(text, **weights(*"uv"))).modified

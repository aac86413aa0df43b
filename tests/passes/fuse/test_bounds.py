"""Chains of limits become one."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse

C = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "six": np.float32(6),
    "row": np.array([0, 1, 2, 3], np.float32),
    "wide": np.zeros((1, 1, 1), np.float32),
}


def model(body: str, opset: int = 18, out: str = "3,4"):
    return make_model(f"agraph (float[3,4] x, float l) => (float[{out}] y) {{ {body} }}", opset, **C)


@pytest.mark.parametrize(
    ("body", "opset", "expected"),
    [
        ("a = Relu(x) y = Relu(a)", 18, "Relu"),
        ("a = Relu(x) y = Clip(a, , one)", 18, "Clip"),
        ("a = Min(x, six) y = Max(zero, a)", 18, "Clip"),
        ("y = Max(x, zero)", 18, "Relu"),
        ("y = Clip(x, zero)", 18, "Relu"),
        ("y = Clip<min = 0.0>(x)", 10, "Relu"),
        ("a = Clip<min = -1.0, max = 1.0>(x) y = Relu(a)", 10, "Clip"),
        ("a = Clip(x, zero, six) b = Clip(a, one) y = Min(b, one)", 18, "Clip"),
    ],
)
def test_one_limit_remains(body: str, opset: int, expected: str) -> None:
    graph = model(body, opset)
    assert fuse(graph).applied["bounds"] >= 1
    assert ops(graph) == {expected: 1}


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("y = Clip(x, zero, six)", "3,4"),
        ("a = Clip(x, l, six) y = Clip(a, l, one)", "3,4"),
        ("y = Max(x, row)", "3,4"),
        ("y = Max(x, wide)", "1,3,4"),
        ("a = Relu(x) b = Clip(a, , one) y = Add(a, b)", "3,4"),
    ],
)
def test_stays(body: str, out: str) -> None:
    assert not fuse(model(body, out=out)).modified


def test_integers_stay() -> None:
    graph = make_model("agraph (int64[4] x) => (int64[4] y) { y = Max(x, c) }", 18, c=np.int64(0))
    assert not fuse(graph).modified


def test_crossed_limits_stay() -> None:
    assert not fuse(model("a = Clip(x, six, one) y = Relu(a)")).modified

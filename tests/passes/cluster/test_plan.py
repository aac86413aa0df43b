"""Which constants are weights, and which are left as they are."""

import numpy as np
import pytest

from graphopt.errors import ModelError
from graphopt.passes.cluster.plan import make_plan
from tests.conftest import make_model


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_weights_of_all_kinds() -> None:
    text = """agraph (float[2,32] x, int64[2] i) => (float[2,64] a, float[2,40] b, float[2,64] d) {
        [first] a = MatMul(x, m) [second] b = Gemm<transB = 1>(x, g, bias) e = Gather(t, i) [third] c = Add(e, p)
        [fourth] d = MatMul(c, m) }"""
    model = make_model(
        text, m=ones(32, 64), g=ones(40, 32), bias=ones(40), t=ones(100, 32), p=ones(64, 32)[:2]
    )
    plan = make_plan(model)
    assert [target.value.name for target in plan.targets] == ["m", "g", "t"]
    assert [target.axis for target in plan.targets] == [1, 0, 0]
    assert [target.product is not None for target in plan.targets] == [False, True, False]


def test_what_is_left_out() -> None:
    text = """agraph (float[2,32] x, float[2,4,8,8] v) => (float[2,4] a, float[2,64] b, float[32,64] h, float[2,64] k, double[2,32] l) {
        [small] a = MatMul(x, s) [output] b = MatMul(x, h) [mine] k = MatMul(x, m) y = Cast<to = 11>(x) [wide] l = MatMul(y, w) }"""
    model = make_model(text, s=ones(32, 4), h=ones(32, 64), m=ones(32, 64), w=np.ones((32, 32)))
    plan = make_plan(model, lambda node: node.name == "mine")
    assert plan.targets == []
    assert plan.left_out == {
        "small": "it has 128 weights",
        "output": "its weights are an output",
        "mine": "excluded",
        "wide": "its weights are DOUBLE",
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bad: float) -> None:
    weights = ones(32, 64)
    weights[3, 4] = bad
    model = make_model("agraph (float[2,32] x) => (float[2,64] y) { y = MatMul(x, w) }", w=weights)
    [target] = make_plan(model).targets
    with pytest.raises(ModelError, match="the weights 'w' hold NaN or infinity"):
        _ = target.array

"""Equal computations and equal weights are kept once; what merely looks equal is not."""

import numpy as np
import pytest

from graphopt.passes.sharing import share_initializers, share_subexpressions
from tests.conftest import make_model, ops, reference


@pytest.mark.parametrize(
    "body",
    [
        "a = Neg(x) b = Neg(x) y = Add(a, b)",
        "a = Mul(x, z) b = Mul(z, x) y = Add(a, b)",
        "a = Clip(x, , h) b = Clip(x, , h) y = Add(a, b)",
        "a = Softmax<axis = 0>(x) b = Softmax<axis = 0>(x) y = Add(a, b)",
    ],
)
def test_equal_nodes_are_merged(body: str) -> None:
    model = make_model(f"agraph (float[2] x, float[2] z, float h) => (float[2] y) {{ {body} }}")
    before = reference(model, FEEDS)
    assert share_subexpressions(model).applied == {"common subexpression": 1}
    np.testing.assert_array_equal(reference(model, FEEDS), before)
    assert not share_subexpressions(model).modified


FEEDS = {
    "x": np.array([1, -2], np.float32),
    "z": np.array([3, 0.5], np.float32),
    "h": np.array(0.5, np.float32),
}


@pytest.mark.parametrize(
    "body",
    [
        "a = Sub(x, z) b = Sub(z, x) y = Add(a, b)",
        "a = Clip(x, h) b = Clip(x, , h) y = Add(a, b)",
        "a = LeakyRelu<alpha = 0.1>(x) b = LeakyRelu<alpha = 0.2>(x) y = Add(a, b)",
        "a = RandomNormalLike(x) b = RandomNormalLike(x) y = Add(a, b)",
        "a = Dropout(x, h, t) b = Dropout(x, h, t) y = Add(a, b)",
        "a = my.domain.Noise(x) b = my.domain.Noise(x) y = Add(a, b)",
        "a = Cast<to = 7>(x) b = Cast<to = 6>(x) y = Neg(x)",
    ],
)
def test_nodes_that_may_differ_stay(body: str) -> None:
    model = make_model(f"agraph (float[2] x, float[2] z, float h, bool t) => (float[2] y) {{ {body} }}")
    before = ops(model)
    assert not share_subexpressions(model).modified
    assert ops(model) == before


def test_a_subgraph_uses_what_is_computed_around_it_but_not_the_reverse() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r, float[2] y) { n = Neg(x)
        r = If(c) <then_branch = t () => (float[2] a) { m = Neg(x) s = Sin(x) a = Add(m, s) },
                   else_branch = e () => (float[2] b) { u = Sin(x) b = Exp(u) }>
        v = Sin(x) y = Add(n, v) }"""
    )
    assert share_subexpressions(model).applied == {"common subexpression": 1}
    assert ops(model) == {"Neg": 1, "If": 1, "Sin": 3, "Add": 2, "Exp": 1}
    reference(model, {"c": np.array(True), "x": np.ones(2, np.float32)})


def test_equal_outputs_of_the_graph_keep_their_names() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Exp(x) }")
    assert share_subexpressions(model).modified
    assert ops(model) == {"Exp": 1, "Identity": 1}
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    assert not share_subexpressions(model).modified


def initializers(left: np.ndarray, right: np.ndarray):
    return make_model(
        "agraph (float[2] x) => (float[2] y) { p = Cast<to = 1>(a) q = Cast<to = 1>(b) y = Add(p, q) }",
        a=left,
        b=right,
    )


@pytest.mark.parametrize("shape", [(2,), (100, 100)])
def test_equal_initializers_are_merged(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    model = initializers(array, array.copy())
    assert share_initializers(model).applied == {"equal initializers": 1}
    assert len(model.graph.initializers) == 1


def almost(shape: tuple[int, ...]) -> np.ndarray:
    array = np.zeros(shape, np.float32)
    array.reshape(-1)[-2] = 1
    return array


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros(2, np.float32), np.array([0, -0.0], np.float32)),
        (np.zeros(2, np.float32), np.zeros(2, np.int32)),
        (np.zeros(2, np.float32), np.zeros((1, 2), np.float32)),
        (np.zeros(10_000, np.float32), almost((10_000,))),
    ],
    ids=["sign of zero", "dtype", "shape", "one element among many"],
)
def test_different_initializers_stay(left: np.ndarray, right: np.ndarray) -> None:
    assert not share_initializers(initializers(left, right)).modified


def test_initializers_that_are_inputs_or_outputs_stay() -> None:
    array = np.ones(2, np.float32)
    model = make_model(
        "agraph (float[2] x, float[2] a) => (float[2] y, float[2] b) { y = Add(x, a) }", a=array, b=array
    )
    assert not share_initializers(model).modified


def test_initializers_of_sibling_branches_are_not_shared() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) { k = Constant<value_floats = [1.0, 2.0]>() a = Add(x, k) },
                   else_branch = e () => (float[2] b) { l = Constant<value_floats = [1.0, 2.0]>() b = Mul(x, l) }> }"""
    )
    assert not share_initializers(model).modified
    reference(model, {"c": np.array(True), "x": np.ones(2, np.float32)})


def test_a_subgraph_uses_an_initializer_of_the_main_graph() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r, float[2] y) { y = Add(x, w)
        r = If(c) <then_branch = t () => (float[2] a) { k = Constant<value_floats = [1.0, 2.0]>() a = Add(x, k) },
                   else_branch = e () => (float[2] b) { b = Neg(x) }> }""",
        w=np.array([1, 2], np.float32),
    )
    assert share_initializers(model).applied == {"equal initializers": 1}
    reference(model, {"c": np.array(True), "x": np.ones(2, np.float32)})

"""Each clean-up rule fires where it must and stays quiet where it must not."""

import numpy as np
import pytest

from graphopt.model import infer_shapes, normalise
from graphopt.passes.cleanup import Cleanup
from graphopt.rewriting.pipeline import Context
from tests.conftest import apply_and_check, make_model, ops, reference

F2 = "agraph (float[2] x) => (float[2] y)"


def cleaned(text: str, opset: int = 18, /, **initializers: np.ndarray):
    model = make_model(text, opset, **initializers)
    normalise(model)
    return model, apply_and_check(Cleanup(), model)


FIRES = [
    ("identity", f"{F2} {{ a = Identity(x) b = Relu(a) y = Identity(b) }}", 18, {}, {"Relu": 1}),
    ("no-op dropout", f"{F2} {{ a = Dropout(x) y = Relu(a) }}", 18, {}, {"Relu": 1}),
    ("no-op dropout", f"{F2} {{ a, m = Dropout<ratio = 0.9>(x) y = Relu(a) }}", 11, {}, {"Relu": 1}),
    ("no-op dropout", f"{F2} {{ a = Dropout(x, , t) y = Relu(a) }}", 18, {"t": np.array(False)}, {"Relu": 1}),
    ("no-op cast", f"{F2} {{ a = Cast<to = 1>(x) y = Relu(a) }}", 18, {}, {"Relu": 1}),
    (
        "cast like",
        "agraph (float[2] x, double[3] z) => (double[2] y) { y = CastLike(x, z) }",
        *(18, {}, {"Cast": 1}),
    ),
    (
        "cast chain",
        "agraph (float16[2] x) => (double[2] y) { a = Cast<to = 1>(x) y = Cast<to = 11>(a) }",
        *(18, {}, {"Cast": 1}),
    ),
    (
        "cast chain",
        "agraph (int32[2] x) => (int32[2] y) { n = Neg(x) a = Cast<to = 7>(n) b = Cast<to = 6>(a) y = Abs(b) }",
        *(18, {}, {"Neg": 1, "Abs": 1}),
    ),
    (
        "multiply by one",
        f"{F2} {{ a = Mul(c, x) y = Relu(a) }}",
        18,
        {"c": np.ones(2, np.float32)},
        {"Relu": 1},
    ),
    ("divide by one", f"{F2} {{ a = Div(x, c) y = Relu(a) }}", 18, {"c": np.float32(1)}, {"Relu": 1}),
    ("subtract zero", f"{F2} {{ a = Sub(x, c) y = Relu(a) }}", 18, {"c": np.float32(0)}, {"Relu": 1}),
    ("add zero", f"{F2} {{ a = Add(x, c) y = Relu(a) }}", 18, {"c": np.float32(-0.0)}, {"Relu": 1}),
    (
        "add zero",
        "agraph (int64[2] x) => (int64[2] y) { a = Add(x, c) y = Neg(a) }",
        *(18, {"c": np.array(0)}, {"Neg": 1}),
    ),
    ("double negation", f"{F2} {{ a = Neg(x) b = Neg(a) y = Relu(b) }}", 18, {}, {"Relu": 1}),
    (
        "double not",
        "agraph (bool[2] x) => (float[2] y) { a = Not(x) b = Not(a) y = Cast<to = 1>(b) }",
        *(18, {}, {"Cast": 1}),
    ),
    (
        "no-op reduction",
        "agraph (float[2,1] x) => (float[2,1] y) { a = ReduceMean(x, c) y = Relu(a) }",
        *(18, {"c": np.array([1])}, {"Relu": 1}),
    ),
]


@pytest.mark.parametrize(("rule", "text", "opset", "weights", "left"), FIRES)
def test_fires(rule: str, text: str, opset: int, weights: dict, left: dict) -> None:
    model, outcome = cleaned(text, opset, **weights)
    assert outcome.applied[rule] >= 1
    assert ops(model) == left
    assert [value.name for value in model.graph.outputs] == ["y"]


STAYS = [
    (
        "training dropout",
        f"{F2} {{ a = Dropout(x, r, t) y = Relu(a) }}",
        {"r": np.float32(0), "t": np.array(True)},
    ),
    ("used mask", "agraph (float[2] x) => (float[2] y, bool[2] m) { y, m = Dropout(x) }", {}),
    ("another type", "agraph (float[2] x) => (int64[2] y) { y = Cast<to = 7>(x) }", {}),
    ("lossy cast", f"{F2} {{ a = Cast<to = 6>(x) y = Cast<to = 1>(a) }}", {}),
    ("lossy integer", "agraph (int64[2] x) => (int64[2] y) { a = Cast<to = 1>(x) y = Cast<to = 7>(a) }", {}),
    ("narrowing", "agraph (double[2] x) => (double[2] y) { a = Cast<to = 1>(x) y = Cast<to = 11>(a) }", {}),
    ("positive zero", f"{F2} {{ y = Add(x, c) }}", {"c": np.float32(0)}),
    ("negative zero", f"{F2} {{ y = Sub(x, c) }}", {"c": np.float32(-0.0)}),
    ("times zero", f"{F2} {{ y = Mul(x, c) }}", {"c": np.float32(0)}),
    ("one over x", f"{F2} {{ y = Div(c, x) }}", {"c": np.float32(1)}),
    ("zero minus x", f"{F2} {{ y = Sub(c, x) }}", {"c": np.float32(0)}),
    ("broadcast", "agraph (float[1] x) => (float[2] y) { y = Mul(x, c) }", {"c": np.ones(2, np.float32)}),
    (
        "higher rank",
        "agraph (float[2] x) => (float[1,2] y) { y = Mul(x, c) }",
        {"c": np.ones((1, 1), np.float32)},
    ),
    ("reduction", "agraph (float[2,1] x) => (float[1,1] y) { y = ReduceMean(x) }", {}),
    ("rank of a reduction", "agraph (float[1] x) => (float y) { y = ReduceMean<keepdims = 0>(x) }", {}),
    (
        "squares",
        "agraph (float[2,1] x) => (float[2,1] y) { y = ReduceSumSquare(x, c) }",
        {"c": np.array([1])},
    ),
]


@pytest.mark.parametrize(("why", "text", "weights"), STAYS, ids=[case[0] for case in STAYS])
def test_stays(why: str, text: str, weights: dict) -> None:
    before = ops(make_model(text, **weights))
    model, _ = cleaned(text, **weights)
    assert ops(model) == before


def test_dropout_before_opset_seven_is_refused() -> None:
    model = make_model(f"{F2} {{ y = Dropout<is_test = 1>(x) }}", 6)
    outcome = Cleanup().apply(model, Context())
    assert ops(model) == {"Dropout": 1}
    assert outcome.refused["no-op dropout", "before opset 7 Dropout may train"] == 1


def test_negative_zero_survives() -> None:
    model, _ = cleaned(f"{F2} {{ y = Add(x, c) }}", c=np.float32(0))
    assert not np.signbit(reference(model, {"x": np.array([-0.0, 1], np.float32)})[0][0])


def test_an_input_that_is_an_output_keeps_its_identity() -> None:
    model, outcome = cleaned(f"{F2} {{ y = Identity(x) }}")
    assert ops(model) == {"Identity": 1}
    assert not outcome.modified


def test_two_outputs_of_one_value_keep_their_names() -> None:
    model, _ = cleaned("agraph (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Identity(y) }")
    assert ops(model) == {"Relu": 1, "Identity": 1}


def test_rules_hold_in_subgraphs_and_respect_captured_values() -> None:
    model, _ = cleaned(
        """agraph (bool c, float[2] x) => (float[2] r) { i = Identity(x)
        r = If(c) <then_branch = t () => (float[2] a) { n = Identity(i) a = Exp(n) },
                   else_branch = e () => (float[2] b) { b = Identity(x) }> }"""
    )
    assert ops(model) == {"If": 1, "Exp": 1, "Identity": 1}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Sigmoid(x) y = Relu(a)", {"Sigmoid": 1}),
        ("a = Tanh(x) y = Relu(a)", {"Tanh": 1, "Relu": 1}),
        ("a = Sum(x) y = Neg(a)", {"Neg": 1}),
        ("a = Sum(x, x) y = Neg(a)", {"Sum": 1, "Neg": 1}),
        ("a = Pow(x, one) y = Neg(a)", {"Neg": 1}),
        ("a = Pow(x, two) y = Neg(a)", {"Pow": 1, "Neg": 1}),
    ],
)
def test_operators_that_leave_their_operand_alone(body: str, left: dict[str, int]) -> None:
    text = f"agraph (float[2,3] x) => (float[2,3] y) {{ {body} }}"
    model = make_model(text, one=np.float32(1), two=np.float32(2))
    infer_shapes(model)
    apply_and_check(Cleanup(), model)
    assert ops(model) == left


def test_a_first_power_that_broadcasts_stays() -> None:
    text = "agraph (float[3] x) => (float[2,3] y) { a = Pow(x, ones) y = Neg(a) }"
    model = make_model(text, ones=np.ones((2, 3), np.float32))
    infer_shapes(model)
    assert not apply_and_check(Cleanup(), model).modified

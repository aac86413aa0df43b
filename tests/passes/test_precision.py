"""Rounding to bfloat16: what is rounded, what is left alone, and that ONNX Runtime computes the same of either form."""

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.passes.precision import FLOAT16, RULE, Precision
from graphopt.rewriting.pipeline import Context, Outcome
from tests.conftest import make_model, ops, random_feeds, reference

RNG = np.random.default_rng(3)
CONV = "g (float[1,4,5,5] x) => (float[1,8,5,5] y) { y = Conv(x, w, b) }"


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def bfloat16(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def conv() -> ir.Model:
    return make_model(CONV, w=floats(8, 4, 1, 1), b=floats(8))


def applied(model: ir.Model, each: Precision | None = None, context: Context | None = None) -> Outcome:
    """The outcome; the model stays valid, differs by no more than rounding, and a second application changes nothing."""
    feeds, each, context = random_feeds(model), each or Precision(), context or Context()
    before = reference(model, feeds)
    outcome = each.apply(model, context)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for expected, actual in zip(before, reference(model, feeds), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=0.02 * np.abs(expected).max())
    assert not each.apply(model, context).modified
    return outcome


def dtypes(model: ir.Model, op_type: str) -> list[str]:
    """Of the results of an operator; those that nobody has told are float32 here."""
    found = [node.outputs[0].dtype for node in model.graph if node.op_type == op_type]
    return ["FLOAT" if dtype is None else dtype.name for dtype in found]


def test_operands_are_rounded_and_the_bias_is_not() -> None:
    model = conv()
    bias = model.graph.initializers["b"].const_value
    assert bias is not None
    weights = model.graph.initializers["w"].const_value
    assert weights is not None
    kernel = weights.numpy()[:, :, 0, 0]
    assert applied(model).applied == {RULE: 1}
    assert dtypes(model, "Cast") == ["BFLOAT16", "FLOAT"]
    assert "w" not in model.graph.initializers
    feeds = random_feeds(model)
    (y,) = reference(model, feeds)
    expected = np.einsum("fc,nchw->nfhw", bfloat16(kernel), bfloat16(feeds["x"]))
    np.testing.assert_allclose(y, expected + bias.numpy()[:, None, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("addition", ["Add", "Sum"])
def test_a_value_is_rounded_once_for_all_who_read_it(addition: str) -> None:
    text = f"""g (float[3,8] x) => (float[3,8] y, float[3,8] z) {{
        a = Relu(x) y = MatMul(a, v) b = Gemm(a, w) z = {addition}(b, a) }}"""
    model = make_model(text, v=floats(8, 8), w=floats(8, 8))
    assert applied(model).applied == {RULE: 2}
    assert ops(model)["Cast"] == 2
    [sums] = [node for node in model.graph if node.op_type == addition]
    assert [source.op_type for source in sums.predecessors()] == ["Gemm", "Cast"]


@pytest.mark.parametrize("reader", ["z = Neg(a)", "z = Identity(a)"])
def test_a_residual_stays_float_where_floats_are_stored_anyway(reader: str) -> None:
    text = f"""g (float[3,8] x) => (float[3,8] y, float[3,8] z) {{
        a = Relu(x) b = MatMul(a, w) y = Add(b, a) {reader} }}"""
    model = make_model(text, w=floats(8, 8))
    applied(model)
    [addition] = [node for node in model.graph if node.op_type == "Add"]
    assert [source.op_type for source in addition.predecessors()] == ["MatMul", "Relu"]


def test_one_copy_of_shared_weights() -> None:
    text = "g (float[3,8] x) => (float[3,8] y) { a = MatMul(x, w) b = MatMul(a, w) y = Mul(b, w) }"
    model = make_model(text.replace("[3,8]", "[8,8]"), w=floats(8, 8))
    applied(model)
    assert sorted(model.graph.initializers) == ["w", "w_rounded"]


def test_halves_are_moved_where_nobody_wants_floats() -> None:
    text = """g (float[2,4,3] p, float[2,4,3] q) => (float[6,5] y) {
        a = Relu(p) b = Concat<axis=1>(a, q) c = Transpose<perm=[0,2,1]>(b) d = Reshape(c, s) y = MatMul(d, w) }"""
    model = make_model(text, w=floats(8, 5), s=np.array([6, 8]))
    applied(model)
    moved = ("Concat", "Transpose", "Reshape")
    assert [dtypes(model, op_type) for op_type in moved] == [["BFLOAT16"]] * 3
    assert dtypes(model, "Cast").count("FLOAT") == 1


@pytest.mark.parametrize("reader", ["z = Neg(a)", "z = Identity(a)"])
def test_what_others_read_moves_as_floats(reader: str) -> None:
    text = f"""g (float[4,3] x) => (float[3,5] y, float[3,4] z) {{
        a = Transpose<perm=[1,0]>(x) y = MatMul(a, w) {reader} }}"""
    model = make_model(text, w=floats(4, 5))
    applied(model)
    assert dtypes(model, "Transpose") == ["FLOAT"]


def test_constants_are_not_moved_as_halves() -> None:
    text = "g (float[2,4] x) => (float[4,5] y) { a = Concat<axis=0>(x, c) y = MatMul(a, w) }"
    model = make_model(text, w=floats(4, 5), c=floats(2, 4))
    applied(model)
    assert dtypes(model, "Concat") == ["FLOAT"]


@pytest.mark.parametrize("pattern", ["Conv", "C*", "first"])
def test_what_is_excluded_stays_float(pattern: str) -> None:
    model = conv()
    model.graph[0].name = "first"
    assert applied(model, Precision(exclude=(pattern,))) == Outcome(refused=outcome_of("excluded"))


def outcome_of(reason: str) -> Counter[tuple[str, str]]:
    return Counter({(RULE, reason): 1})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[2,4] x, float[4,4] v) => (float[2,4] y) { y = MatMul(x, v) }",
            "weights computed at run time",
        ),
        ("g (double[2,4] x) => (double[2,4] y) { y = MatMul(x, d) }", "weights of another type"),
        ("g (float[4,4] x) => (float[4,4] y) { a = MatMul(w, w) y = Add(a, x) }", "a constant input"),
    ],
)
def test_other_operands_stay_as_they_are(text: str, reason: str) -> None:
    model = make_model(text, w=floats(4, 4), d=floats(4, 4).astype(np.float64))
    assert applied(model).refused == {(RULE, reason): 1}


def test_what_gains_nothing_stays_float() -> None:
    assert applied(conv(), context=Context(gains=lambda node: False)).refused == {
        (RULE, "nothing to gain"): 1
    }


def test_old_opsets_have_no_bfloat16() -> None:
    model = make_model(CONV, 12, w=floats(8, 4, 1, 1), b=floats(8))
    outcome = Precision().apply(model, Context())
    assert not outcome.modified
    assert outcome.refused == {(RULE, "opset 13 brings bfloat16"): 1}


def test_a_model_without_products_is_left_alone() -> None:
    assert (
        Precision().apply(make_model("g (float[2] x) => (float[2] y) { y = Relu(x) }"), Context())
        == Outcome()
    )


def test_float16() -> None:
    """The same with other halves; what was rounded already is known again."""
    model = conv()
    weights = model.graph.initializers["w"].const_value
    assert weights is not None
    assert applied(model, Precision(half=FLOAT16)).applied == {RULE: 1}
    assert dtypes(model, "Cast") == ["FLOAT16", "FLOAT"]
    rounded = model.graph.initializers["w_rounded"].const_value
    assert rounded is not None
    np.testing.assert_array_equal(rounded.numpy(), weights.numpy().astype(np.float16).astype(np.float32))


def test_weights_that_float16_does_not_hold_stay_float() -> None:
    model = make_model(CONV, w=floats(8, 4, 1, 1) * 1e5, b=floats(8))
    outcome = applied(model, Precision(half=FLOAT16))
    assert outcome.refused == {(RULE, "values beyond float16"): 1}
    assert applied(model).applied == {RULE: 1}

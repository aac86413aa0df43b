"""Rounding to float16: also of operands computed at run time, and never of what it cannot hold."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.passes.precision import FLOAT16_EVERYWHERE, RULE, Precision
from graphopt.rewriting.pipeline import Context, Outcome
from tests.conftest import make_model, random_feeds, reference

RNG = np.random.default_rng(4)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def applied(model: ir.Model, **options: object) -> Outcome:
    """The outcome; the model stays valid, differs by no more than rounding, and a second application changes nothing."""
    each = Precision(half=FLOAT16_EVERYWHERE, **options)  # type: ignore[arg-type]
    feeds = random_feeds(model)
    before = reference(model, feeds)
    outcome = each.apply(model, Context())
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for expected, actual in zip(before, reference(model, feeds), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-3 * np.abs(expected).max())
    assert not each.apply(model, Context()).modified
    return outcome


def dtypes(model: ir.Model, op_type: str) -> list[str]:
    found = [node.outputs[0].dtype for node in model.graph if node.op_type == op_type]
    return ["FLOAT" if dtype is None else dtype.name for dtype in found]


def test_inputs_outputs_and_sums_stay_float32() -> None:
    model = make_model("g (float[1,4,5,5] x) => (float[1,8,5,5] y) { y = Conv(x, w) }", w=floats(8, 4, 1, 1))
    assert applied(model).applied == {RULE: 1}
    assert [node.op_type for node in model.graph] == ["Cast", "Cast", "Conv"]
    assert dtypes(model, "Cast") == ["FLOAT16", "FLOAT"]
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [ir.DataType.FLOAT] * 2
    [weights] = model.graph.initializers.values()
    assert weights.const_value is not None
    array = weights.const_value.numpy()
    np.testing.assert_array_equal(array, array.astype(np.float16).astype(np.float32))


def test_both_operands_of_attention_are_rounded_and_softmax_is_not() -> None:
    text = """g (float[2,4,8] q, float[2,8,4] k, float[2,4,8] v) => (float[2,4,8] y) {
        s = MatMul(q, k) p = Softmax<axis=-1>(s) y = MatMul(p, v) }"""
    model = make_model(text)
    assert applied(model).applied == {RULE: 2}
    assert dtypes(model, "Cast").count("FLOAT16") == 4
    assert dtypes(model, "Softmax") == ["FLOAT"]


def test_a_pool_moves_halves() -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4,4,4] y) {
        a = Relu(x) b = MaxPool<kernel_shape=[2,2],strides=[2,2]>(a) y = Conv(b, w) }"""
    model = make_model(text, w=floats(4, 3, 1, 1))
    applied(model)
    assert dtypes(model, "MaxPool") == ["FLOAT16"]
    assert dtypes(model, "Relu") == ["FLOAT"]


@pytest.mark.parametrize("other", ["z = Neg(b)", "z = Identity(b)"])
def test_a_pool_that_others_read_does_not(other: str) -> None:
    text = f"""g (float[1,3,8,8] x) => (float[1,4,4,4] y, float[1,3,4,4] z) {{
        b = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x) y = Conv(b, w) {other} }}"""
    model = make_model(text, w=floats(4, 3, 1, 1))
    applied(model)
    assert dtypes(model, "MaxPool") == ["FLOAT"]


def test_a_pool_with_positions_does_not() -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4,4,4] y, int64[1,3,4,4] z) {
        b, z = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x) y = Conv(b, w) }"""
    model = make_model(text, w=floats(4, 3, 1, 1))
    applied(model)
    assert dtypes(model, "MaxPool") == ["FLOAT"]


def test_averages_are_not_computed_in_halves() -> None:
    text = """g (float[1,3,8,8] x) => (float[1,4,1,1] y) { a = GlobalAveragePool(x) y = Conv(a, w) }"""
    model = make_model(text, w=floats(4, 3, 1, 1))
    applied(model)
    assert dtypes(model, "GlobalAveragePool") == ["FLOAT"]


def test_values_that_are_too_large_stay_float32() -> None:
    model = make_model("g (float[3,8] x) => (float[3,8] y) { y = MatMul(x, w) }", w=floats(8, 8))
    assert applied(model, too_large=frozenset({"x"})).refused == {(RULE, "values beyond float16"): 1}
    assert applied(model, too_large=frozenset({"y"})).applied == {RULE: 1}


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_weights_that_are_too_large_stay_float32(value: float) -> None:
    weights = floats(8, 8)
    weights[1, 2] = value
    model = make_model("g (float[3,8] x) => (float[3,8] y) { y = MatMul(x, w) }", w=weights)
    outcome = Precision(half=FLOAT16_EVERYWHERE).apply(model, Context())
    assert outcome == Outcome(refused=outcome.refused)
    assert outcome.refused == {(RULE, "values beyond float16"): 1}


def test_the_largest_weight_is_none_too_many() -> None:
    weights = np.full((8, 8), 65504, np.float32)
    model = make_model("g (float[3,8] x) => (float[3,8] y) { y = MatMul(x, w) }", w=weights)
    assert applied(model).applied == {RULE: 1}


def test_the_bias_is_not_an_operand() -> None:
    model = make_model("g (float[8,8] x) => (float[8,8] y) { y = Gemm(x, w, x) }", w=floats(8, 8))
    applied(model)
    [gemm] = [node for node in model.graph if node.op_type == "Gemm"]
    assert gemm.inputs[2] is model.graph.inputs[0]


@pytest.mark.parametrize("pattern", ["MatMul", "first"])
def test_what_is_excluded_stays_float32(pattern: str) -> None:
    model = make_model("g (float[3,8] x) => (float[3,8] y) { y = MatMul(x, w) }", w=floats(8, 8))
    model.graph[0].name = "first"
    assert applied(model, exclude=(pattern,)).refused == {(RULE, "excluded"): 1}

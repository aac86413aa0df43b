"""Conversion between opsets keeps the result and does not touch the weights."""

import numpy as np
import pytest

from graphopt import model as models
from graphopt.errors import ModelError
from graphopt.passes.opset import ConvertOpset
from graphopt.rewriting.pipeline import Context
from tests.conftest import apply_and_check, make_model, reference


def test_axes_become_inputs_and_weights_stay() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    text = "agraph (float[2,64] x) => (float[2] y) { a = MatMul(x, w) y = ReduceSum<axes = [1], keepdims = 0>(a) }"
    model = make_model(text, 11, w=weights)
    models.normalise(model)
    tensor = model.graph.initializers["w"].const_value
    assert apply_and_check(ConvertOpset(18), model).modified
    assert model.opset_imports[""] == 18
    assert model.graph.initializers["w"].const_value is tensor
    assert [value.name for value in model.graph.inputs] == ["x"]
    reference(model, {"x": np.zeros((2, 64), np.float32)})


def test_new_inputs_are_constants_that_fold() -> None:
    """A batch norm's scale, as old exporters write it, is known at compile time after the conversion as it was before."""
    text = "agraph (float[1,4,3,3] x) => (float[1,4,3,3] y) { a = Unsqueeze<axes = [1, 2]>(s) y = Mul(x, a) }"
    model = make_model(text, 9, s=np.ones(4, np.float32))
    assert apply_and_check(ConvertOpset(13), model).modified
    assert [node.op_type for node in model.graph] == ["Unsqueeze", "Mul"]
    assert all(value.const_value is not None for value in model.graph[0].inputs if value is not None)


def test_the_same_opset_is_no_change() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) }", 18)
    assert not ConvertOpset(18).apply(model, Context()).modified


def test_what_cannot_be_converted_is_an_error() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Gelu(x) }", 20)
    with pytest.raises(ModelError, match="from opset 20 to 8"):
        ConvertOpset(8).apply(model, Context())

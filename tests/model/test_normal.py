"""The normal form: no functions, no Constant nodes, unique names, shapes everywhere."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.errors import ModelError
from graphopt.model import freeze_defaults, frozen_notice, normalise, validate
from tests.conftest import make_model, ops, reference

FUNCTIONS = """<ir_version: 8, opset_import: ["": 18, "local": 1]>
agraph (float[2] x) => (float[2] y) {{ y = local.outer(x) }}
<domain: "local", opset_import: ["": 18, "local": 1]> outer (a) => (b) {{ t = local.inner(a) b = Relu(t) }}
<domain: "local", opset_import: ["": 18, "local": 1]> inner (a) => (b) {{ b = {}(a) }}"""


def test_functions_are_inlined() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTIONS.format("Neg")))
    normalise(model)
    assert ops(model) == {"Neg": 1, "Relu": 1}
    assert not model.functions
    validate(model)


def test_functions_that_call_each_other_are_refused() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTIONS.format("local.outer")))
    with pytest.raises(ModelError, match="circle"):
        normalise(model)


def test_constants_become_initializers() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]>
    agraph (float[2] x) => (float[2] y) { c = Constant<value_floats = [1.0, 2.0]>() y = Add(x, c) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    normalise(model)
    assert ops(model) == {"Add": 1}
    assert model.graph.initializers["c"].const_value.numpy().tolist() == [1, 2]


def test_names_in_sibling_subgraphs_become_unique() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) { n = Neg(x) a = Exp(n) },
                   else_branch = e () => (float[2] a) { n = Abs(x) a = Exp(n) }> }"""
    )
    feeds = {"c": np.array(False), "x": np.array([1, -2], np.float32)}
    before = reference(model, feeds)
    normalise(model)
    values = [
        output.name for node in ir.traversal.RecursiveGraphIterator(model.graph) for output in node.outputs
    ]
    assert len(set(values)) == len(values)
    np.testing.assert_array_equal(reference(model, feeds), before)
    assert model.graph.outputs[0].name == "r"


def test_shapes_are_inferred_in_subgraphs_too() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) { n = Neg(x) a = Exp(n) },
                   else_branch = e () => (float[2] b) { b = Abs(x) }> }"""
    )
    normalise(model)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        assert node.outputs[0].shape == [2]


def test_defaults_stay_overridable_unless_frozen() -> None:
    model = make_model(
        "agraph (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32)
    )
    normalise(model)
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert freeze_defaults(model) == ["w"]
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_old_models_list_initializers_as_inputs_and_mean_nothing_by_it() -> None:
    model = make_model(
        "agraph (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32)
    )
    model.ir_version = 3
    normalise(model)
    assert [value.name for value in model.graph.inputs] == ["x"]
    validate(model)


def test_large_weights_are_not_shipped_for_inference() -> None:
    weights = np.ones((64, 64), np.float32)
    model = make_model(
        "agraph (float[1,64] x) => (float[1,64] y) { a = MatMul(x, w) y = Relu(a) }", w=weights
    )
    tensor = ir.Tensor(weights, name="w")
    model.graph.initializers["w"].const_value = tensor
    normalise(model)
    assert model.graph[0].outputs[0].shape == [1, 64]
    assert model.graph.initializers["w"].const_value is tensor


@pytest.mark.parametrize(("listed", "left"), [(20, 1), (19, 20)], ids=["all listed", "one not listed"])
def test_models_that_list_all_their_weights_as_inputs_do_so_by_habit(listed: int, left: int) -> None:
    weights = {f"w{index}": np.full(2, index, np.float32) for index in range(20)}
    inputs = ", ".join(["float[2] x", *(f"float[2] {name}" for name in list(weights)[:listed])])
    body = f"y = Sum(x, {', '.join(weights)})"
    model = make_model(f"agraph ({inputs}) => (float[2] y) {{ {body} }}", **weights)
    assert len(normalise(model)) == listed + 1 - left
    assert len(model.graph.inputs) == left


def test_what_became_constant_is_told() -> None:
    assert frozen_notice([]) == []
    assert frozen_notice(["a", "b"]) == [
        "2 initializers that are listed as inputs too became constants: a, b"
    ]
    (notice,) = frozen_notice(list("abcde"))
    assert notice.endswith(": a, b, c, ...")

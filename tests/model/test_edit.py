"""The allowed edits keep names, types and graphs in order."""

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from tests.conftest import make_model, ops, reference


def test_fresh_names_are_free_in_the_whole_model() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                   else_branch = e () => (float[2] b) { b = Abs(x) }> }"""
    )
    names = edit.Names(model)
    assert [names.fresh(name) for name in ("a", "x", "r", "new", "new")] == [
        "a_1",
        "x_1",
        "r_1",
        "new",
        "new_1",
    ]


def test_constants_that_callers_may_override_are_not_constant() -> None:
    model = make_model(
        "agraph (float[2] x, float[2] w) => (float[2] y) { a = Add(x, w) y = Add(a, v) }", w=W, v=W
    )
    assert edit.constant(model.graph.initializers["w"]) is None
    assert edit.constant(model.graph.initializers["v"]).tolist() == [1, 2]
    assert edit.constant(model.graph.inputs[0]) is None
    assert edit.constant(None) is None


W = np.array([1, 2], np.float32)


def test_a_new_constant_does_not_rename_the_tensor_it_shares() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Add(x, w) }", w=W)
    tensor = ir.Tensor(W, name="original")
    added = edit.add_constant(model.graph, tensor, "copy")
    assert (tensor.name, added.const_value.name) == ("original", "copy")
    assert np.shares_memory(added.const_value.numpy(), W)


def replace_relu(text: str, replacement) -> ir.Model:
    model = make_model(text)
    node = next(node for node in model.graph if node.op_type == "Relu")
    edit.replace_outputs(node, [replacement(model)])
    reference(model, {"x": W})
    assert [value.name for value in model.graph.outputs] == [
        name.strip().split()[-1] for name in text.split("=>")[1].split("{")[0].strip(" ()").split(",")
    ]
    return model


def test_an_output_hands_its_name_over() -> None:
    text = "agraph (float[2] x) => (float[2] y) { a = Neg(x) y = Relu(a) }"
    model = replace_relu(text, lambda model: model.graph[0].outputs[0])
    assert ops(model) == {"Neg": 1}


def test_an_input_in_place_of_an_output_needs_an_identity() -> None:
    text = "agraph (float[2] x) => (float[2] y) { y = Relu(x) }"
    assert ops(replace_relu(text, lambda model: model.graph.inputs[0])) == {"Identity": 1}


def test_another_output_in_place_of_an_output_needs_an_identity() -> None:
    text = "agraph (float[2] x) => (float[2] z, float[2] y) { z = Neg(x) y = Relu(z) }"
    assert ops(replace_relu(text, lambda model: model.graph[0].outputs[0])) == {"Neg": 1, "Identity": 1}


def test_a_constant_in_place_of_an_output_needs_an_identity() -> None:
    text = "agraph (float[2] x) => (float[2] z, float[2] y) { z = Neg(x) y = Relu(x) }"
    model = replace_relu(text, lambda model: edit.add_constant(model.graph, W, "k"))
    assert ops(model) == {"Neg": 1, "Identity": 1}


def test_types_are_inherited_and_fixed_dimensions_win() -> None:
    old = ir.Value(name="old", shape=ir.Shape([2, "N", 4]), type=ir.TensorType(ir.DataType.FLOAT))
    new = ir.Value(name="new", shape=ir.Shape([None, 3, "M"]))
    edit.inherit_type(old, new)
    assert new.dtype == ir.DataType.FLOAT
    assert new.shape == [2, 3, 4]


def test_detaching_a_node_frees_what_its_subgraphs_captured() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] y) { y = Relu(x)
        r = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                   else_branch = e () => (float[2] b) { b = Abs(x) }> }"""
    )
    edit.detach(model.graph[1])
    assert len(model.graph.inputs[1].uses()) == 1
    assert ops(model) == {"Relu": 1}

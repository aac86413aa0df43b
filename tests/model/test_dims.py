"""Binding dimensions and values, and refusing what contradicts the model."""

import numpy as np
import pytest

from graphopt.errors import InputError, ShapeError
from graphopt.model import bind_dims, bind_first_dims, bind_values, free_dims, infer_shapes
from tests.conftest import make_model, ops

TEXT = "agraph (float[N,3,H] x, float[N,W] z) => (float[N,3,H] y, float[N,W] w) { y = Relu(x) w = Neg(z) }"
UNNAMED = "agraph (float[?,3] x) => (float[?,3] y) { y = Relu(x) }"


def shapes(model) -> list[list]:
    values = (*model.graph.inputs, *model.graph.outputs)
    return [[dim if isinstance(dim, int) else dim.value for dim in value.shape] for value in values]


def test_free_dimensions_are_listed_by_input() -> None:
    assert free_dims(make_model(TEXT)) == {"x": ["N", "H"], "z": ["N", "W"]}
    assert free_dims(make_model(UNNAMED)) == {"x": ["axis 0"]}


def test_a_name_is_bound_wherever_it_occurs() -> None:
    model = make_model(TEXT)
    bind_dims(model, {"N": 2, "H": 5})
    assert shapes(model) == [[2, 3, 5], [2, "W"], [2, 3, 5], [2, "W"]]


def test_a_shape_binds_the_names_in_it() -> None:
    model = make_model(TEXT)
    bind_dims(model, input_shapes={"x": (2, 3, 5)})
    assert shapes(model) == [[2, 3, 5], [2, "W"], [2, 3, 5], [2, "W"]]


def test_a_shape_binds_dimensions_without_a_name() -> None:
    model = make_model(UNNAMED)
    bind_dims(model, input_shapes={"x": (4, 3)})
    infer_shapes(model)
    assert shapes(model) == [[4, 3], [4, 3]]


def test_free_first_dimensions_become_one() -> None:
    model = make_model(TEXT)
    assert bind_first_dims(model) == {"x": "N"}
    assert shapes(model) == [[1, 3, "H"], [1, "W"], [1, 3, "H"], [1, "W"]]
    unnamed = make_model(UNNAMED)
    assert bind_first_dims(unnamed) == {"x": "axis 0"}
    assert free_dims(unnamed) == {}


def test_inferred_shapes_follow_the_binding() -> None:
    model = make_model("agraph (float[N,2] x) => (float[N,2] y) { a = Relu(x) y = Neg(a) }")
    infer_shapes(model)
    bind_dims(model, {"N": 7})
    infer_shapes(model)
    assert model.graph[0].outputs[0].shape == [7, 2]


@pytest.mark.parametrize(
    ("dims", "input_shapes", "message"),
    [
        ({"M": 1}, {}, "no input has a dimension called 'M'; named dimensions: H, N, W"),
        ({"N": 0}, {}, "sizes are positive"),
        ({}, {"q": (1,)}, "no input is called 'q'"),
        ({}, {"x": (1, 3)}, "has 2 dimensions, the input has 3"),
        ({}, {"x": (1, 4, 5)}, "fixed to 3"),
        ({"N": 2}, {"x": (1, 3, 5)}, "cannot be both 2 and 1"),
        ({}, {"x": (1, 3, 5), "z": (2, 4)}, "cannot be both 1 and 2"),
    ],
)
def test_contradictions_are_refused(dims: dict, input_shapes: dict, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        bind_dims(make_model(TEXT), dims, input_shapes)


def test_a_bound_value_is_a_constant_of_the_input_type() -> None:
    model = make_model("agraph (float[2] x, float[2] s) => (float[2] y) { y = Mul(x, s) }")
    bind_values(model, {"s": np.array([1, 2])})
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.graph.initializers["s"].const_value.numpy().dtype == np.float32
    assert ops(model) == {"Mul": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"t": np.ones(2)}, "no input is called 't'"),
        ({"s": np.ones(3, np.float32)}, "does not fit"),
        ({"s": np.array(["a", "b"])}, "cannot be bound"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict, message: str) -> None:
    model = make_model("agraph (float[2] x, float[2] s) => (float[2] y) { y = Mul(x, s) }")
    with pytest.raises(InputError, match=message):
        bind_values(model, values)


def test_string_inputs_cannot_be_bound() -> None:
    model = make_model("agraph (string[2] x) => (string[2] y) { y = Identity(x) }")
    with pytest.raises(InputError, match="string input"):
        bind_values(model, {"x": np.array(["a", "b"])})

import numpy as np
import pytest

from graphopt.errors import ShapeError
from graphopt.model.variants import Binding, combinations, make_variants
from tests.conftest import make_model

MODEL = make_model("g (float[batch,seq,4] x) => (float[batch,seq,4] y) { y = Relu(x) }")


def test_combinations() -> None:
    assert combinations({"a": [1, 2], "b": 3}) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert combinations({}) == [{}]


def test_a_variant_a_combination() -> None:
    variants = make_variants(MODEL, Binding({"batch": [1, 2], "seq": [8, 9]}))
    shapes = [model.graph.inputs[0].shape for model in variants.models]
    assert [list(shape or ()) for shape in shapes] == [[1, 8, 4], [1, 9, 4], [2, 8, 4], [2, 9, 4]]
    assert str(MODEL.graph.inputs[0].shape) == "[batch,seq,4]"


def test_a_free_first_dimension_becomes_1() -> None:
    variants = make_variants(MODEL, Binding({"seq": 8}))
    assert list(variants.models[0].graph.inputs[0].shape or ()) == [1, 8, 4]
    assert any("'batch' set to 1" in notice for notice in variants.notices)


def test_other_free_dimensions_are_refused_with_the_option() -> None:
    with pytest.raises(ShapeError, match=r"(?s)x: seq.*--dim seq=SIZE"):
        make_variants(MODEL, Binding())


def test_nameless_dimensions_are_refused_with_the_option() -> None:
    model = make_model("g (float[1,?] x) => (float[1,?] y) { y = Relu(x) }")
    with pytest.raises(ShapeError, match="--input-shape x=D0"):
        make_variants(model, Binding())


def test_bound_values_are_no_inputs() -> None:
    model = make_model("g (float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }")
    variants = make_variants(model, Binding(values={"w": np.ones(2, np.float32)}))
    assert [value.name for value in variants.models[0].graph.inputs] == ["x"]

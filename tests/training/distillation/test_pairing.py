"""Teachers with the names of their students."""

import numpy as np
import pytest

from graphopt.errors import GraphoptError
from graphopt.training.distillation import paired
from tests.conftest import make_model, reference

WEIGHTS = {"w": np.arange(12, dtype=np.float32).reshape(4, 3)}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def test_names_are_those_of_the_student() -> None:
    """Even where the teacher uses them for something else; what it computes stays."""
    student = make_model("agraph (float[N,4] in) => (float[N,3] out) { out = MatMul(in, w) }", **WEIGHTS)
    teacher = make_model(
        "agraph (float[N,4] x) => (float[N,3] y) { in = Abs(x) out = MatMul(in, w) y = Neg(out) }", **WEIGHTS
    )
    found = paired(teacher, student)
    assert [each.name for each in (*found.graph.inputs, *found.graph.outputs)] == ["in", "out"]
    np.testing.assert_array_equal(reference(found, {"in": X})[0], reference(teacher, {"x": X})[0])
    assert teacher.graph.inputs[0].name == "x"


def test_names_count_before_order() -> None:
    text = "agraph (float[N,4] {}, float[N,4] {}) => (float[N,4] {}) {{ {} = Sub({}, {}) }}"
    student = make_model(text.format("a", "b", "y", "y", "a", "b"))
    teacher = make_model(text.format("b", "a", "y", "y", "a", "b"))
    found = paired(teacher, student)
    feeds = {"a": X, "b": 2 * X}
    np.testing.assert_array_equal(reference(found, feeds)[0], X - 2 * X)


def test_it_takes_as_many_samples_as_the_student() -> None:
    student, teacher = (
        make_model(f"agraph (float[{size},4] x) => (float[{size},4] y) {{ y = Abs(x) }}") for size in (8, "N")
    )
    assert list(paired(teacher, student).graph.inputs[0].shape) == [8, 4]
    assert not isinstance(paired(student, teacher).graph.inputs[0].shape[0], str)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Abs(x) z = Neg(x) }", r"1 output\(s\), the teacher has 2"),
        ("(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add(x, z) }", r"1 input\(s\), the teacher has 2"),
        ("(float[N,5] x) => (float[N,5] y) { y = Abs(x) }", r"input 'x' is float \[N, 4\], the teacher's 'x' is float \[N, 5\]"),
        ("(float[N,4] x) => (float[N,2] y) { y = Slice(x, a, b, c) }", r"output 'y' is float \[N, 4\]"),
        ("(float[N,4] x) => (int64[N,4] y) { y = Cast<to = 7>(x) }", "the teacher's 'y' is int64"),
        ("(float[N,4] x) => (float[N] y) { y = ReduceMax<keepdims = 0>(x, c) }", r"the teacher's 'y' is float \[N\]"),
    ],
)  # fmt: skip
def test_models_that_do_not_belong_together(text: str, message: str) -> None:
    student = make_model("agraph (float[N,4] x) => (float[N,4] y) { y = Abs(x) }")
    constants = {"a": np.array([0]), "b": np.array([2]), "c": np.array([1])}
    with pytest.raises(GraphoptError, match=message):
        paired(make_model(f"agraph {text}", **constants), student)

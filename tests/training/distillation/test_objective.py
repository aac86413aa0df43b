"""What is compared of two models, and what is refused."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from graphopt.errors import GraphoptError
from graphopt.model import normalise
from graphopt.training.distillation import Goal
from graphopt.training.distillation.objective import Objective, Term, kind_of, make_objective
from tests.conftest import make_model
from tests.training.distillation.harness import shipped

WEIGHTS = {"w": np.ones((6, 3), np.float32), "s": np.ones(6, np.float32), "q": np.float32(0.1)}


def model(text: str) -> ir.Model:
    found = make_model(text, **WEIGHTS)
    normalise(found)
    return found


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("(float[N,6] x) => (float[N,3] y) { m = MatMul(x, w) y = Softmax(m) }", "classes"),
        ("(float[N,6] x) => (float[N,3] y) { m = MatMul(x, w) i = Identity(m) y = Add(i, i) }", "classes"),
        ("(float[N,6] x) => (float[N,3] y) { m = MatMul(x, w) l = QuantizeLinear(m, q) y = DequantizeLinear(l, q) }",
         "classes"),
        ("(float[N,5,6] x) => (float[N,5,3] y) { y = MatMul(x, w) }", "tokens"),
        ("(float[N,5,6] x) => (float[N,5,6] y) { y = LayerNormalization(x, s) }", "regression"),
        ("(float[N,6] x) => (float[N,6] y) { y = LpNormalization(x) }", "embedding"),
        ("(float[N,6] x) => (float[N,1] y) { y = ReduceSum(x) }", "regression"),
        ("(float[N,6] x) => (float[N] y) { y = ReduceMax<keepdims = 0>(x) }", "regression"),
        ("(float[N,4,5,6] x) => (float[N,4,5,3] y) { y = MatMul(x, w) }", "regression"),
    ],
)  # fmt: skip
def test_outputs_are_told_apart(text: str, kind: str) -> None:
    assert kind_of(model(f"agraph {text}").graph.outputs[0]) == kind


def test_probabilities_are_compared_before_their_softmax() -> None:
    student = shipped("digits_mlp")
    teacher = shipped("digits_cnn")
    found = make_objective(student, teacher, Goal())
    softmax = [each.graph.outputs[0].producer() for each in (student, teacher)]
    assert found.terms == [Term(softmax[0].inputs[0].name, softmax[1].inputs[0].name, "classes", 1.0)]  # type: ignore[union-attr]


def test_labels_share_with_the_teacher() -> None:
    same = shipped("digits_mlp")
    assert make_objective(same, same, Goal(labels=True, alpha=0.25)).terms[0].weight == 0.75
    alone = make_objective(same, same, Goal(labels=True, alpha=1.0))
    assert alone.terms == []
    assert alone.student_values == [alone.scores]
    assert alone.agreement({}, {}) is None


def test_every_output_of_floats_counts() -> None:
    text = "agraph (float[N,6] x) => (float[N,3] y, int64[N,3] i, float[N,6] r) { y = MatMul(x, w) i = Cast<to = 7>(y) r = Relu(x) }"
    found = make_objective(model(text), model(text), Goal("regression"))
    assert [(term.student, term.kind) for term in found.terms] == [("y", "regression"), ("r", "embedding")]


def test_the_loss_is_the_sum_of_its_terms() -> None:
    terms = [Term("a", "t", "regression", 0.5), Term("b", "u", "feature", 2.0)]
    objective = Objective(terms, 1.0, 0.5, "a")
    found = {"a": torch.tensor([[2.0, 0.0]]), "b": torch.tensor([[3.0]])}
    targets = {"t": torch.tensor([[1.0, 1.0]]), "u": torch.tensor([[1.0]])}
    labels = torch.tensor([1])
    expected = 0.5 * 1.0 + 2.0 * 4.0 + 0.5 * np.log1p(np.exp(2.0))
    assert float(objective.loss(found, targets, {}, labels)) == pytest.approx(expected)


def test_padding_does_not_count() -> None:
    objective = Objective([Term("a", "a", "tokens")], 1.0, 0.0, "a")
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = objective.loss({"a": student}, {"a": teacher}, {"attention_mask": mask}, None)
    changed = student + 5 * torch.randn(2, 3, 4) * (1 - mask)[..., None]
    assert float(objective.loss({"a": changed}, {"a": teacher}, {"attention_mask": mask}, None)) == float(
        found
    )
    assert float(objective.loss({"a": changed}, {"a": teacher}, {}, None)) != float(found)


def test_agreement_is_of_largest_scores() -> None:
    objective = Objective([Term("a", "a", "classes")], 1.0, 0.0, "a")
    student, teacher = torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]
    assert objective.agreement({"a": student}, {"a": teacher}) == 0.5


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (((2, 3), (2, 4)), None, r"has shape \[2, 3\], the teacher's 'a' has shape \[2, 4\]"),
        (((2, 3), (2, 3)), [0, 3], r"labels lie within 0 .. 3, the student has 3 classes"),
        (((2, 3), (2, 3)), [-1, 2], r"labels lie within -1 .. 2"),
    ],
)
def test_what_cannot_be_compared(
    values: tuple[tuple[int, ...], ...], labels: list[int] | None, message: str
) -> None:
    student, teacher = (torch.zeros(shape) for shape in values)
    objective = Objective([Term("a", "a", "classes", 0.5)], 1.0, 0.5, "a")
    with pytest.raises(GraphoptError, match=message):
        objective.loss({"a": student}, {"a": teacher}, {}, None if labels is None else torch.tensor(labels))


def test_features_of_other_places_are_refused() -> None:
    objective = Objective([Term("a", "a", "feature")], 1.0, 0.0, "a")
    with pytest.raises(GraphoptError, match="cannot be compared"):
        objective.loss({"a": torch.zeros(2, 3, 4, 4)}, {"a": torch.zeros(2, 3, 5, 4)}, {}, None)


def test_what_makes_no_sense() -> None:
    tokens = model("agraph (float[N,5,6] x) => (float[N,5,3] y) { y = MatMul(x, w) }")
    with pytest.raises(GraphoptError, match="labels are of classes, the first output is taken for tokens"):
        make_objective(tokens, tokens, Goal(labels=True))
    integers = model("agraph (float[N,6] x) => (int64[N,6] y) { y = Cast<to = 7>(x) }")
    with pytest.raises(GraphoptError, match="no output of floats"):
        make_objective(integers, integers, Goal())

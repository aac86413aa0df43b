import numpy as np
import onnx_ir as ir
import pytest

from graphopt.accuracy.locate import Compiler, cut, first_difference
from graphopt.accuracy.verify import Runner, reference
from graphopt.feeds.random_feeds import random_feeds
from tests.conftest import make_model

CHAIN = """g (float[2, 3] x) => (float[2, 3] y) {
    a = Abs(x) b = Exp(x) c = Add(a, b) d = Sqrt(c) e = Mul(d, a) f = Tanh(e) y = Add(f, b)
}"""
BRANCH = """g (float[2] x, bool c) => (float[2] y) {
    a = Exp(x) b = Abs(x) d = If (c) <then_branch = t () => (float[2] p) { p = Sqrt(a) }, else_branch = e ()
    => (float[2] q) { q = Neg(a) }> y = Add(b, d)
}"""


def replacing(op: str, by: str) -> Compiler:
    """A compiler that takes one operator for another."""

    def build(model: ir.Model) -> Runner:
        copy = model.clone()
        for node in ir.traversal.RecursiveGraphIterator(copy.graph):
            node.op_type = by if node.op_type == op else node.op_type
        return reference(copy)

    return build


@pytest.mark.parametrize(
    ("op", "by", "output"),
    [("Abs", "Neg", "a"), ("Exp", "Neg", "b"), ("Sqrt", "Neg", "d"), ("Tanh", "Neg", "f")],
)
def test_the_first_wrong_node_is_found(op: str, by: str, output: str) -> None:
    model = make_model(CHAIN)
    found = first_difference(model, replacing(op, by), random_feeds(model))
    assert found is not None
    assert found.op == op
    assert f"({op}): output '{output}'" in str(found)


def test_agreement_finds_nothing() -> None:
    model = make_model(CHAIN)
    assert first_difference(model, replacing("Softmax", "Relu"), random_feeds(model)) is None


def test_few_steps_are_taken() -> None:
    model = make_model("g (float[2] x) => (float[2] y) { y = Exp(x) }")
    first = model.graph[0].outputs[0]
    for index in range(62):
        node = ir.node("Tanh", [model.graph[-1].outputs[0]], name=f"tanh{index}")
        node.outputs[0].name = f"t{index}"
        model.graph.append(node)
    model.graph.outputs[0] = model.graph[-1].outputs[0]
    model.graph.outputs[0].type, model.graph.outputs[0].shape = first.type, first.shape
    steps: list[int] = []
    broken = replacing("Exp", "Neg")

    def counting(part: ir.Model) -> Runner:
        steps.append(len(part.graph))
        return broken(part)

    found = first_difference(model, counting, {"x": np.float32([0.5, 2])})
    assert found is not None
    assert found.op == "Exp"
    assert len(steps) <= 7


def test_a_cut_exposes_what_lives_across_it() -> None:
    model = make_model(CHAIN)
    assert [value.name for value in cut(model, 3).graph.outputs] == ["a", "b", "c"]
    assert [value.name for value in cut(model, 7).graph.outputs] == ["y"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_a_cut_sees_what_subgraphs_read() -> None:
    assert [value.name for value in cut(make_model(BRANCH), 2).graph.outputs] == ["a", "b"]


def test_a_wrong_node_inside_a_branch_names_the_branch() -> None:
    model = make_model(BRANCH)
    found = first_difference(model, replacing("Sqrt", "Neg"), {"x": np.float32([1, 2]), "c": np.array(True)})
    assert found is not None
    assert found.op == "If"

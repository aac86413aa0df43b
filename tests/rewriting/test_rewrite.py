"""The engine fires each kind of pattern, respects its guards, and leaves names alone."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.rewriting.pattern import Const, Either, Op, Var
from graphopt.rewriting.pipeline import Outcome
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule, apply_rules
from tests.conftest import make_model, ops, reference


def relu(match: Match) -> Replacement:
    return match.op("Relu", [match["x"]])


def rewrite(model: ir.Model, pattern: Op, function=relu) -> Outcome:
    return apply_rules(model, [Rule("rule", pattern, function)])


SILU = Op("Mul", "x", Op("Sigmoid", "x"))


@pytest.mark.parametrize("body", ["s = Sigmoid(x) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, x)"])
def test_commutative_operators_match_in_both_orders(body: str) -> None:
    model = make_model(f"agraph (float[2] x) => (float[2] y) {{ {body} }}")
    assert rewrite(model, SILU).applied == {"rule": 1}
    assert ops(model) == {"Relu": 1}
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[2] x, float[2] z) => (float[2] y) { s = Sigmoid(z) y = Mul(x, s) }",
        "agraph (float[2] x) => (float[2] y, float[2] s) { s = Sigmoid(x) y = Mul(x, s) }",
        "agraph (float[2] x) => (float[2] y, float[2] t) { s = Sigmoid(x) y = Mul(x, s) t = Neg(s) }",
        "agraph (float[2] x) => (float[2] y) { s = graphopt.Sigmoid(x) y = Mul(x, s) }",
        "agraph (float[2] x) => (float[2] y) { s = Sigmoid(x) y = Sub(x, s) }",
    ],
    ids=["another value", "inner output of the graph", "inner value used outside", "domain", "operator"],
)
def test_must_not_match(text: str) -> None:
    model = make_model(text)
    before = ops(model)
    assert not rewrite(model, SILU).modified
    assert ops(model) == before


def test_inner_value_captured_by_a_subgraph_is_used_outside() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] y, float[2] r) { s = Sigmoid(x) y = Mul(x, s)
        r = If(c) <then_branch = t () => (float[2] a) { a = Neg(s) }, else_branch = e () => (float[2] b) { b = Abs(s) }>
        }"""
    )
    assert not rewrite(model, SILU).modified


def test_shared_lets_others_use_the_inner_value() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y, float[2] s) { s = Sigmoid(x) y = Mul(x, s) }")
    assert rewrite(model, Op("Mul", "x", Op("Sigmoid", "x", shared=True))).modified
    assert ops(model) == {"Relu": 1, "Sigmoid": 1}


def test_rules_run_in_subgraphs() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) { s = Sigmoid(x) a = Mul(x, s) },
                   else_branch = e () => (float[2] b) { b = Abs(x) }> }"""
    )
    assert rewrite(model, SILU).modified
    assert ops(model) == {"If": 1, "Relu": 1, "Abs": 1}
    reference(model, {"c": np.array(True), "x": np.ones(2, np.float32)})


def test_a_diamond_binds_one_node_in_two_places() -> None:
    inner = Op("Neg", "x")
    pattern = Op("Div", inner, Op("Exp", inner))
    same = make_model("agraph (float[2] x) => (float[2] y) { n = Neg(x) e = Exp(n) y = Div(n, e) }")
    twins = make_model(
        "agraph (float[2] x) => (float[2] y) { n = Neg(x) m = Neg(x) e = Exp(m) y = Div(n, e) }"
    )
    assert rewrite(same, pattern).modified
    assert not rewrite(twins, pattern).modified


def test_optional_and_surplus_inputs() -> None:
    text = "agraph (float[2] x, float lo, float hi) => (float[2] y) {{ y = Clip({}) }}"
    no_minimum = Op("Clip", "x", None, "hi")
    assert rewrite(make_model(text.format("x, , hi")), no_minimum).modified
    assert not rewrite(make_model(text.format("x, lo, hi")), no_minimum).modified
    assert not rewrite(make_model(text.format("x, lo, hi")), Op("Clip", "x", "lo")).modified
    assert rewrite(make_model(text.format("x, lo, hi")), Op("Clip", "x", ...)).modified
    assert rewrite(make_model(text.format("x, lo")), Op("Clip", "x", "lo", Var("hi", optional=True))).modified
    assert not rewrite(make_model(text.format("x, lo")), Op("Clip", "x", "lo", "hi")).modified


@pytest.mark.parametrize(
    ("value", "fires"), [(np.float32(2), True), (np.full(2, 2.0, np.float32), True), (np.float32(3), False)]
)
def test_numbers_match_constants_with_equal_elements(value: np.ndarray, fires: bool) -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Pow(x, c) }", c=value)
    assert rewrite(model, Op("Pow", "x", 2)).modified is fires


def test_numbers_are_rounded_to_the_dtype_of_the_constant() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Mul(x, c) }", c=np.float32(0.1))
    assert rewrite(model, Op("Mul", "x", 0.1)).modified


def test_a_constant_that_is_also_an_input_is_not_constant() -> None:
    model = make_model(
        "agraph (float[2] x, float[1] c) => (float[2] y) { y = Pow(x, c) }", c=np.full(1, 2, np.float32)
    )
    assert not rewrite(model, Op("Pow", "x", Const("c"))).modified


def test_size_guard_and_predicate_of_constants() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Pow(x, c) }", c=np.full(2, 2, np.float32))
    assert not rewrite(model, Op("Pow", "x", Const("c", max_size=1))).modified
    assert not rewrite(model, Op("Pow", "x", Const("c", where=lambda a: a.ndim == 0))).modified
    assert rewrite(model, Op("Pow", "x", Const("c", where=lambda a: a.ndim == 1, max_size=2))).modified


@pytest.mark.parametrize(("axis", "fires"), [("", True), ("<axis = -1>", True), ("<axis = 1>", False)])
def test_attributes_see_defaults_of_the_schema(axis: str, fires: bool) -> None:
    model = make_model(f"agraph (float[2,2] x) => (float[2,2] y) {{ y = Softmax{axis}(x) }}")
    assert rewrite(model, Op("Softmax", "x", attributes={"axis": -1})).modified is fires


def test_defaults_follow_the_opset() -> None:
    model = make_model("agraph (float[2,2] x) => (float[2,2] y) { y = Softmax(x) }", 11)
    assert rewrite(model, Op("Softmax", "x", attributes={"axis": 1})).modified


def test_defaults_follow_the_opset_in_subgraphs() -> None:
    model = make_model(
        """agraph (bool c, float[2,2] x) => (float[2,2] r) {
        r = If(c) <then_branch = t () => (float[2,2] a) { a = Softmax(x) },
                   else_branch = e () => (float[2,2] b) { b = Abs(x) }> }""",
        11,
    )
    assert rewrite(model, Op("Softmax", "x", attributes={"axis": 1})).modified


def test_either_and_second_output() -> None:
    text = "agraph (float[4] x) => (float[2] y) {{ a, b = Split<num_outputs = 2>(x) y = Neg({}) }}"
    second = Op("Neg", Either(Op("Split", "x", ..., output=1), Op("Abs", "x")))

    def first_half(match: Match) -> Replacement:
        return match.op("Split", [match["x"]], num_outputs=2, outputs=2)

    assert rewrite(make_model(text.format("b")), second, first_half).modified
    assert not rewrite(make_model(text.format("a")), second, first_half).modified


def test_refusals_are_counted_and_leave_nothing_behind() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Neg(x) }")

    def decline(match: Match) -> Replacement:
        match.op("Relu", [match["x"], np.zeros(1, np.float32)])
        return Refuse("not today")

    outcome = rewrite(model, Op("Neg", "x"), decline)
    assert not outcome.modified
    assert outcome.refused == {("rule", "not today"): 2}
    assert not model.graph.initializers
    assert len(model.graph.inputs[0].uses()) == 2


def test_new_matches_are_found_downstream_and_dead_producers_go() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) c = Neg(b) y = Neg(c) }")
    assert rewrite(model, Op("Neg", Op("Neg", "x")), lambda match: match["x"]).applied == {"rule": 2}
    assert ops(model) == {"Identity": 1}


def test_users_that_are_dead_do_not_count() -> None:
    model = make_model(
        "agraph (float[2] x) => (float[2] y) { s = Sigmoid(x) y = Mul(x, s) n = Neg(s) z = Exp(n) }"
    )
    assert rewrite(model, SILU).applied == {"rule": 1}
    assert ops(model) == {"Relu": 1}


def test_a_custom_node_without_users_stays() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Neg(x) z = my.domain.Log(x) }")
    assert rewrite(model, Op("Neg", "x")).applied == {"rule": 1}
    assert ops(model) == {"Relu": 1, "Log": 1}


def test_the_opset_of_a_new_domain_is_imported() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Neg(x) }")
    rewrite(model, Op("Neg", "x"), lambda match: match.op("Swish", [match["x"]], domain="new"))
    assert model.opset_imports["new"] == 1


def test_rules_that_undo_each_other_come_to_an_end() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Neg(x) }")
    rules = [
        Rule("there", Op("Neg", "x"), lambda match: match.op("Abs", [match["x"]])),
        Rule("back", Op("Abs", "x"), lambda match: match.op("Neg", [match["x"]])),
    ]
    assert apply_rules(model, rules, limit=7).applied.total() == 7


def test_several_outputs_are_replaced() -> None:
    model = make_model("agraph (float[4] x) => (float[2] a, float[2] b) { a, b = Split<num_outputs = 2>(x) }")

    def halves(match: Match) -> Replacement:
        split = match.op("Split", [match["x"], np.array([2, 2])], outputs=2)
        return split.producer().outputs

    assert rewrite(model, Op("Split", "x"), halves).applied["rule"] == 1
    assert [value.name for value in model.graph.outputs] == ["a", "b"]
    reference(model, {"x": np.ones(4, np.float32)})


def test_fresh_names_avoid_names_in_subgraphs() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r, float[2] y) { y = Neg(x)
        r = If(c) <then_branch = t () => (float[2] y_abs) { y_abs = Abs(y) },
                   else_branch = e () => (float[2] y_exp) { y_exp = Exp(y) }> }"""
    )

    def chain(match: Match) -> Replacement:
        return match.op("Relu", [match.op("Abs", [match.op("Exp", [match["x"]])])])

    assert rewrite(model, Op("Neg", "x"), chain).modified
    reference(model, {"c": np.array(True), "x": np.ones(2, np.float32)})
    names = [
        output.name for node in ir.traversal.RecursiveGraphIterator(model.graph) for output in node.outputs
    ]
    assert len(set(names)) == len(names)

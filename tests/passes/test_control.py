"""An If whose condition is known becomes the branch it takes."""

import numpy as np
import pytest

from graphopt.model import normalise
from graphopt.passes.control import InlineIf
from graphopt.rewriting.pipeline import Context
from tests.conftest import apply_and_check, make_model, ops

TEXT = """agraph (float[2] x) => (float[2] r, float[2] q) { n = Neg(x)
    r = If(c) <then_branch = t () => (float[2] a) { m = Exp(n) a = Mul(m, w) },
               else_branch = e () => (float[2] b) { m = Abs(n) b = Sin(m) }>
    q = Cos(r) }"""
W = np.array([2, 3], np.float32)


@pytest.mark.parametrize(("condition", "inside"), [(True, {"Exp", "Mul"}), (False, {"Abs", "Sin"})])
def test_the_taken_branch_moves_out(condition: bool, inside: set[str]) -> None:
    model = make_model(TEXT, c=np.array(condition), w=W)
    normalise(model)
    assert apply_and_check(InlineIf(), model).applied["if with a constant condition"] == 1
    assert set(ops(model)) == {"Neg", "Cos"} | inside


def test_ifs_inside_the_taken_branch_follow() -> None:
    model = make_model(
        """agraph (float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) {
                s = If(c) <then_branch = tt () => (float[2] u) { u = Exp(x) },
                           else_branch = ee () => (float[2] v) { v = Sin(x) }>
                a = Neg(s) },
            else_branch = e () => (float[2] b) { b = Abs(x) }> }""",
        c=np.array(True),
    )
    normalise(model)
    apply_and_check(InlineIf(), model)
    assert ops(model) == {"Exp": 1, "Neg": 1}


def test_weights_of_the_branch_come_along() -> None:
    model = make_model(
        """agraph (float[2] x) => (float[2] r) {
        r = If(c) <then_branch = t () => (float[2] a) { k = Constant<value_floats = [1.0, 2.0]>() a = Mul(x, k) },
                   else_branch = e () => (float[2] b) { b = Abs(x) }> }""",
        c=np.array(True),
    )
    normalise(model)
    apply_and_check(InlineIf(), model)
    assert ops(model) == {"Mul": 1}


def test_an_undecided_if_stays() -> None:
    model = make_model(TEXT.replace("(float[2] x)", "(bool c, float[2] x)"), w=W)
    normalise(model)
    assert not apply_and_check(InlineIf(), model).modified
    assert ops(model)["If"] == 1


def test_a_condition_that_callers_may_override_is_undecided() -> None:
    model = make_model(TEXT.replace("(float[2] x)", "(bool c, float[2] x)"), c=np.array(True), w=W)
    normalise(model)
    assert not InlineIf().apply(model, Context()).modified

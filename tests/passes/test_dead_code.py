"""What no output needs goes, and nothing else."""

import numpy as np

from graphopt.passes.dead_code import remove_dead_code
from tests.conftest import make_model, ops


def test_dead_chains_and_their_weights_go() -> None:
    model = make_model(
        "agraph (float[2] x) => (float[2] y) { a = Mul(x, w) b = Neg(a) y = Relu(x) }",
        w=np.ones(2, np.float32),
    )
    assert remove_dead_code(model).applied == {"dead node": 2, "unused initializer": 1}
    assert ops(model) == {"Relu": 1}
    assert not model.graph.initializers
    assert not remove_dead_code(model).modified


def test_a_value_that_only_a_subgraph_reads_is_alive() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] r) { s = Neg(x)
        r = If(c) <then_branch = t () => (float[2] a) { d = Exp(s) a = Mul(s, w) },
                   else_branch = e () => (float[2] b) { b = Abs(x) }> }""",
        w=np.ones(2, np.float32),
    )
    assert remove_dead_code(model).applied == {"dead node": 1}
    assert ops(model) == {"Neg": 1, "If": 1, "Mul": 1, "Abs": 1}
    assert set(model.graph.initializers) == {"w"}


def test_a_dead_if_takes_what_only_it_used_along() -> None:
    model = make_model(
        """agraph (bool c, float[2] x) => (float[2] y) { y = Relu(x) s = Neg(x)
        r = If(c) <then_branch = t () => (float[2] a) { a = Exp(s) },
                   else_branch = e () => (float[2] b) { b = Abs(s) }> }"""
    )
    remove_dead_code(model)
    assert ops(model) == {"Relu": 1}


def test_a_node_with_one_live_output_stays() -> None:
    model = make_model("agraph (float[4] x) => (float[2] y) { y, z = Split<num_outputs = 2>(x) }")
    assert not remove_dead_code(model).modified


def test_inputs_overridable_defaults_and_outputs_stay() -> None:
    model = make_model(
        "agraph (float[2] x, float[2] w) => (float[2] y, float[2] v) { y = Relu(x) }",
        w=np.ones(2, np.float32),
        v=np.ones(2, np.float32),
    )
    assert not remove_dead_code(model).modified
    assert len(model.graph.inputs) == 2


def test_custom_nodes_stay() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) z = my.domain.Log(x) }")
    assert not remove_dead_code(model).modified

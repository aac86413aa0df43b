"""Concats that begin with another one's operands, for the compiler only."""

import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, fuse_for_compile

HEAD = "agraph (float[1,2] a, float[1,3] b, float[1,4] c, float[1,1] d) => "


def test_a_dense_block_becomes_a_chain() -> None:
    model = make_model(
        HEAD
        + """(float[1,5] x, float[1,9] y, float[1,10] z) {
            x = Concat<axis = 1>(a, b)
            y = Concat<axis = 1>(a, b, c)
            z = Concat<axis = 1>(a, b, c, d)
        }"""
    )
    assert set(fuse_for_compile(model).applied) == {"concat prefix"}
    assert [len(node.inputs) for node in model.graph] == [2, 2, 2]


@pytest.mark.parametrize(
    "body",
    [
        "x = Concat<axis = 1>(b, a) y = Concat<axis = 1>(a, b, c)",
        "x = Concat<axis = 1>(a, c) y = Concat<axis = 1>(a, b, c)",
        "x = Concat<axis = 1>(a, b) y = Concat<axis = -1>(a, b, c)",
        "y = Concat<axis = 1>(a, b, c) x = Concat<axis = 1>(a, b)",
        "x = Concat<axis = 1>(a) y = Concat<axis = 1>(a, b, c)",
    ],
)
def test_other_concats_stay(body: str) -> None:
    model = make_model(HEAD + f"(float[1,m] x, float[1,9] y) {{ {body} }}")
    assert not fuse_for_compile(model).modified


def test_standard_models_stay() -> None:
    model = make_model(
        HEAD + "(float[1,5] x, float[1,9] y) { x = Concat<axis = 1>(a, b) y = Concat<axis = 1>(a, b, c) }"
    )
    assert not fuse(model).modified
    assert ops(model) == {"Concat": 2}

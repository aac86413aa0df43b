"""Which values are held rounded: those that all readers take so, and that reach a product."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.passes.held import Held
from tests.conftest import make_model

MOVERS = ("Concat", "Resize", "Slice", "Split", "Transpose")


def held(text: str, too_large: tuple[str, ...] = ()) -> str:
    """Names of the values that are held where products multiply what they compute at run time."""
    weights = {"w": np.ones((4, 4), np.float32), "two": np.array([1, 2], np.float32)}
    weights |= {name: np.array([i]) for i, name in enumerate(("zero", "one", "half"))}
    model = make_model(text, **weights)

    def multiplies(node: ir.Node, i: int) -> bool:
        return node.op_type == "MatMul" and i == 0

    return " ".join(value.name or "" for value in Held(model.graph, multiplies, MOVERS, too_large).in_order())


def test_products_and_what_is_added_to_them() -> None:
    assert held("g (float[4,4] x) => (float[4,4] y) { a = Relu(x) b = MatMul(a, w) y = Add(a, b) }") == "a"
    assert held("g (float[4,4] x) => (float[4,4] y) { a = Relu(x) b = MatMul(a, w) y = Mul(a, b) }") == ""


def test_nothing_is_held_for_additions_alone() -> None:
    assert held("g (float[4,4] x) => (float[4,4] y) { a = Relu(x) b = MatMul(a, w) y = Add(x, b) }") == "a"


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ("Transpose<perm=[0,1]>(x)", "a b c e f"),
        ("Neg(a)", "b c e f"),
        ("Neg(c)", "b e f"),
        ("Neg(e)", "a b c f"),
        ("Neg(f)", ""),
    ],
)
def test_what_is_moved_together_is_held_together(reader: str, expected: str) -> None:
    """A strict reader of a part keeps floats of what it is parted from; one of the whole, of all. Nobody multiplies `c` as such."""
    text = f"""g (float[4,4] x) => (float[4,4] y, float[4,N] z) {{
        a = Relu(x) b, c = Split<axis=1, num_outputs=2>(a) d = Neg(x) s = Slice(d, zero, half, one)
        e = Add(c, s) f = Concat<axis=1>(b, e) y = MatMul(f, w) z = {reader} }}"""
    assert held(text) == expected


@pytest.mark.parametrize(("mode", "expected"), [("nearest", "a u"), ("linear", "u")])
def test_only_copies_are_moved(mode: str, expected: str) -> None:
    text = f'g (float[4,2] x) => (float[4,4] y) {{ a = Relu(x) u = Resize<mode="{mode}">(a, , two) y = MatMul(u, w) }}'
    assert held(text) == expected


def test_what_is_too_large_is_not_held() -> None:
    text = "g (float[4,4] x) => (float[4,4] y) { a = Relu(x) t = Transpose<perm=[1,0]>(a) y = MatMul(t, w) }"
    assert held(text) == "a t"
    assert held(text, ("a",)) == "t"
    assert held(text, ("t",)) == ""


def test_outputs_of_the_model_keep_their_digits() -> None:
    assert held("g (float[4,4] x) => (float[4,4] a, float[4,4] y) { a = Relu(x) y = MatMul(a, w) }") == ""

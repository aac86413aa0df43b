"""Transposes cancel through operators that work in any layout, and only through those."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model import infer_shapes
from graphopt.passes.cleanup import Cleanup
from tests.conftest import apply_and_check, make_model, ops

TO_LAST, TO_FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"
CONSTANTS = {
    "row": np.arange(3, dtype=np.float32),
    "scalar": np.float32(2),
    "pads": np.array([0, 1, 0, 0, 0, 2, 0, 0]),
    "large": np.ones((1, 64, 512, 3), np.float32),
}


def model(body: str, out: str = "1,3,4,5", opset: int = 17) -> ir.Model:
    text = f"agraph (float[1,3,4,5] x, float[1,3,4,5] z) => (float[{out}] y) {{ {body} }}"
    graph = make_model(text, opset, **CONSTANTS)
    infer_shapes(graph)
    return graph


CANCELLING = {
    "unary chain": f"a = {TO_LAST}(x) b = Relu(a) c = Sigmoid(b) y = {TO_FIRST}(c)",
    "scalar": f"a = {TO_LAST}(x) b = Mul(a, scalar) y = {TO_FIRST}(b)",
    "per channel": f"a = {TO_LAST}(x) b = Add(row, a) y = {TO_FIRST}(b)",
    "two operands": f"a = {TO_LAST}(x) b = {TO_LAST}(z) c = Max(a, b) d = Neg(c) y = {TO_FIRST}(d)",
    "clip": f"a = {TO_LAST}(x) b = Clip(a, scalar) y = {TO_FIRST}(b)",
}


@pytest.mark.parametrize("body", CANCELLING.values(), ids=CANCELLING.keys())
def test_a_pair_cancels(body: str) -> None:
    graph = model(body)
    assert apply_and_check(Cleanup(), graph).modified
    assert not ops(graph)["Transpose"]


def test_a_pair_cancels_around_a_concat() -> None:
    graph = model(
        f"a = {TO_LAST}(x) b = {TO_LAST}(z) c = Concat<axis = -1>(a, b) y = {TO_FIRST}(c)", "1,6,4,5"
    )
    apply_and_check(Cleanup(), graph)
    assert ops(graph) == {"Concat": 1}


@pytest.mark.parametrize("opset", [9, 17])
def test_a_pair_cancels_around_a_pad(opset: int) -> None:
    pad = "Pad(a, pads)" if opset > 10 else "Pad<pads = [0, 1, 0, 0, 0, 2, 0, 0]>(a)"
    graph = model(f"a = {TO_LAST}(x) b = {pad} y = {TO_FIRST}(b)", "1,3,7,5", opset)
    apply_and_check(Cleanup(), graph)
    assert ops(graph) == {"Pad": 1}


STAYING = {
    "another permutation": (f"a = {TO_LAST}(x) b = Relu(a) y = Transpose<perm = [0, 2, 1, 3]>(b)", "1,5,4,3"),
    "used elsewhere": (
        f"a = {TO_LAST}(x) b = Relu(a) c = {TO_FIRST}(b) d = ReduceSum<keepdims = 0>(b) y = Add(c, d)",
        None,
    ),
    "an operand without one": (
        f"a = {TO_LAST}(x) s = Transpose<perm = [0, 1, 2, 3]>(w) b = Add(a, s) y = {TO_FIRST}(b)",
        None,
    ),
    "an operator with a layout": (f"a = {TO_LAST}(x) b = Softmax<axis = 1>(a) y = {TO_FIRST}(b)", None),
}


@pytest.mark.parametrize(("body", "out"), STAYING.values(), ids=STAYING.keys())
def test_what_does_not_cancel_stays(body: str, out: str | None) -> None:
    body = body.replace("(w)", "(row4)")
    text = f"agraph (float[1,3,4,5] x, float[1,4,5,3] row4) => (float[{out or '1,3,4,5'}] y) {{ {body} }}"
    graph = make_model(text, 17)
    assert not apply_and_check(Cleanup(), graph).applied["transposes that cancel"]
    assert ops(graph)["Transpose"] >= 1


def test_a_large_constant_is_not_transposed() -> None:
    text = f"agraph (float[1,3,64,512] x) => (float[1,3,64,512] y) {{ a = {TO_LAST}(x) b = Add(a, large) y = {TO_FIRST}(b) }}"
    graph = make_model(text, 17, large=CONSTANTS["large"])
    assert not apply_and_check(Cleanup(), graph).modified


def test_one_transpose_behind_instead_of_two_in_front() -> None:
    graph = model(f"a = {TO_LAST}(x) b = {TO_LAST}(z) y = Sub(a, b)", "1,4,5,3")
    assert apply_and_check(Cleanup(), graph).applied["transposed operands"] == 1
    assert ops(graph) == {"Sub": 1, "Transpose": 1}


def test_operands_of_different_layouts_stay() -> None:
    text = f"""agraph (float[1,3,4,4] x, float[1,3,4,4] z) => (float[1,4,4,3] y) {{
        a = {TO_LAST}(x) b = Transpose<perm = [0, 3, 2, 1]>(z) y = Sub(a, b) }}"""
    assert not apply_and_check(Cleanup(), make_model(text, 17)).modified


@pytest.mark.parametrize(
    ("reduction", "out", "gone"),
    [
        ("ReduceMean<axes = [1, 2], keepdims = 0>(a)", "1,3", True),
        ("ReduceMean<axes = [-1], keepdims = 0>(a)", "1,4,5", True),
        ("ReduceMean<axes = [1], keepdims = 0>(a)", "1,5,3", False),
        ("ReduceMean<axes = [1, 2]>(a)", "1,1,1,3", False),
    ],
)
def test_a_reduction_needs_no_transpose_if_the_rest_is_in_order(reduction: str, out: str, gone: bool) -> None:
    graph = model(f"a = {TO_LAST}(x) y = {reduction}", out)
    apply_and_check(Cleanup(), graph, exact=False)
    assert (ops(graph) == {"ReduceMean": 1}) == gone

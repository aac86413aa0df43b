"""Data movement that does nothing vanishes; chains become one operator."""

import numpy as np
import pytest

from graphopt.model import normalise
from graphopt.passes.cleanup import Cleanup
from tests.conftest import apply_and_check, make_model, ops


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


FIRES = [
    (
        "no-op reshape",
        "(float[2,3] x) => (float[2,3] y) { a = Reshape(x, s) y = Relu(a) }",
        {"s": ints(2, -1)},
        {"Relu": 1},
    ),
    (
        "no-op reshape",
        "(float[N,3] x) => (float[N,3] y) { a = Reshape(x, s) y = Relu(a) }",
        {"s": ints(0, 3)},
        {"Relu": 1},
    ),
    (
        "no-op expand",
        "(float[2,3] x) => (float[2,3] y) { a = Expand(x, s) y = Relu(a) }",
        {"s": ints(1, 3)},
        {"Relu": 1},
    ),
    (
        "no-op transpose",
        "(float[2,3] x) => (float[2,3] y) { a = Transpose<perm = [0, 1]>(x) y = Relu(a) }",
        {},
        {"Relu": 1},
    ),
    (
        "no-op slice",
        "(float[4] x) => (float[4] y) { a = Slice(x, b, e) y = Relu(a) }",
        *({"b": ints(0), "e": ints(9)}, {"Relu": 1}),
    ),
    (
        "no-op slice",
        "(float[N,4] x) => (float[N,4] y) { a = Slice(x, b, e) y = Relu(a) }",
        *({"b": ints(0), "e": ints(2**63 - 1)}, {"Relu": 1}),
    ),
    (
        "no-op pad",
        "(float[2,3] x) => (float[2,3] y) { a = Pad(x, p) y = Relu(a) }",
        {"p": ints(0, 0, 0, 0)},
        {"Relu": 1},
    ),
    (
        "no-op tile",
        "(float[2,3] x) => (float[2,3] y) { a = Tile(x, r) y = Relu(a) }",
        {"r": ints(1, 1)},
        {"Relu": 1},
    ),
    (
        "concat of one",
        "(float[2] x) => (float[2] y) { a = Concat<axis = 0>(x) y = Relu(a) }",
        {},
        {"Relu": 1},
    ),
    (
        "split into one",
        "(float[2] x) => (float[2] y) { a = Split<num_outputs = 1>(x) y = Relu(a) }",
        {},
        {"Relu": 1},
    ),
    (
        "concat of a split",
        "(float[4,2] x) => (float[4,2] y) { a, b = Split<num_outputs = 2>(x) c = Concat<axis = -2>(a, b) y = Relu(c) }",
        *({}, {"Relu": 1}),
    ),
    (
        "squeeze of unsqueeze",
        "(float[N,M] x) => (float[N,M] y) { a = Unsqueeze(x, c) b = Squeeze(a, c) y = Relu(b) }",
        *({"c": ints(1)}, {"Relu": 1}),
    ),
    (
        "reshape chain",
        "(float[2,6] x) => (float[4,3] y) { a = Reshape(x, s) y = Reshape(a, t) }",
        *({"s": ints(3, 4), "t": ints(4, 3)}, {"Reshape": 1}),
    ),
    (
        "reshape chain",
        "(float[N,2,3] x) => (float[N,6] y) { a = Flatten(x) b = Unsqueeze(a, c) y = Squeeze(b, d) }",
        *({"c": ints(0), "d": ints(0)}, {"Reshape": 1}),
    ),
    (
        "transpose chain",
        "(float[2,3,4] x) => (float[3,2,4] y) { a = Transpose(x) y = Transpose<perm = [1, 2, 0]>(a) }",
        *({}, {"Transpose": 1}),
    ),
    (
        "transpose chain",
        "(float[2,3] x) => (float[2,3] y) { a = Transpose(x) b = Transpose(a) y = Relu(b) }",
        *({}, {"Relu": 1}),
    ),
    (
        "transpose of ones",
        "(float[2,1,3] x) => (float[1,2,3] y) { y = Transpose<perm = [1, 0, 2]>(x) }",
        *({}, {"Reshape": 1}),
    ),
    (
        "slice chain",
        "(float[4,5] x) => (float[2,2] y) { a = Slice(x, b, e, c, s) y = Slice(a, b, e, d) }",
        *({"b": ints(1), "e": ints(3), "c": ints(0), "d": ints(1), "s": ints(1)}, {"Slice": 1}),
    ),
    (
        "concat chain",
        "(float[2] x, float[2] z) => (float[6] y) { a = Concat<axis = 0>(x, z) y = Concat<axis = 0>(a, x) }",
        *({}, {"Concat": 1}),
    ),
    (
        "expand before broadcast",
        "(float[1,3] x, float[2,3] z) => (float[2,3] y) { a = Expand(x, s) y = Add(z, a) }",
        *({"s": ints(2, 3)}, {"Add": 1}),
    ),
]


@pytest.mark.parametrize(("rule", "text", "weights", "left"), FIRES)
def test_fires(rule: str, text: str, weights: dict, left: dict) -> None:
    model = make_model(f"agraph {text}", **weights)
    normalise(model)
    assert apply_and_check(Cleanup(), model).applied[rule] >= 1
    assert ops(model) == left


STAYS = [
    (
        "reshape to a permuted shape",
        "(float[2,3] x) => (float[3,2] y) { y = Reshape(x, s) }",
        {"s": ints(3, 2)},
    ),
    (
        "reshape with unnamed dims",
        "(float[?,?] x) => (float[?,?] y) { y = Reshape(x, s) }",
        {"s": ints(2, -1)},
    ),
    ("expand", "(float[1,3] x) => (float[2,3] y) { y = Expand(x, s) }", {"s": ints(2, 3)}),
    ("transpose of a square", "(float[2,2] x) => (float[2,2] y) { y = Transpose(x) }", {}),
    ("slice", "(float[4] x) => (float[3] y) { y = Slice(x, b, e) }", {"b": ints(1), "e": ints(9)}),
    (
        "reversal",
        "(float[4] x) => (float[4] y) { y = Slice(x, b, e, a, s) }",
        {"b": ints(-1), "e": ints(-9), "a": ints(0), "s": ints(-1)},
    ),
    (
        "step on a free dimension",
        "(float[N] x) => (float[M] y) { y = Slice(x, b, e, a, s) }",
        {"b": ints(0), "e": ints(2**63 - 1), "a": ints(0), "s": ints(2)},
    ),
    ("pad", "(float[2] x) => (float[3] y) { y = Pad(x, p) }", {"p": ints(0, 1)}),
    ("tile", "(float[2] x) => (float[4] y) { y = Tile(x, r) }", {"r": ints(2)}),
    (
        "concat of a split in another order",
        "(float[4] x) => (float[4] y) { a, b = Split<num_outputs = 2>(x) y = Concat<axis = 0>(b, a) }",
        {},
    ),
    (
        "concat of a split along another axis",
        "(float[4,2] x) => (float[2,4] y) { a, b = Split<num_outputs = 2>(x) y = Concat<axis = 1>(a, b) }",
        {},
    ),
    (
        "slices of the same axis",
        "(float[9] x) => (float[2] y) { a = Slice(x, b, e, c) y = Slice(a, b, e, c) }",
        {"b": ints(1), "e": ints(4), "c": ints(0)},
    ),
    (
        "slice used twice",
        "(float[4,5] x) => (float[2,2] y, float[2,5] z) { a = Slice(x, b, e, c) y = Slice(a, b, e, d) z = Neg(a) }",
        {"b": ints(1), "e": ints(3), "c": ints(0), "d": ints(1)},
    ),
    (
        "concat along another axis",
        "(float[1,2] x) => (float[2,3] y) { a=Concat<axis=0>(x,x) b=Concat<axis=0>(w,w) y=Concat<axis=1>(a,b) }",
        {"w": np.ones((1, 1), np.float32)},
    ),
    (
        "expand that broadcasting does not do",
        "(float[1,3] x, float[1,3] z) => (float[2,3] y) { a = Expand(x, s) y = Add(z, a) }",
        {"s": ints(2, 3)},
    ),
    (
        "two free dimensions",
        "(float[A,B,C] x) => (float[1,A,D] y) { a = Reshape(x, s) y = Unsqueeze(a, t) }",
        {"s": ints(0, -1), "t": ints(0)},
    ),
]


@pytest.mark.parametrize(("why", "text", "weights"), STAYS, ids=[case[0] for case in STAYS])
def test_stays(why: str, text: str, weights: dict) -> None:
    model = make_model(f"agraph {text}", **weights)
    normalise(model)
    before = ops(model)
    apply_and_check(Cleanup(), model)
    assert ops(model) == before


def test_old_slices_have_their_bounds_as_attributes() -> None:
    text = "agraph (float[4] x) => (float[4] y) {{ a = Slice<starts = [{}], ends = [9]>(x) y = Relu(a) }}"
    whole = make_model(text.format(0), 9)
    apply_and_check(Cleanup(), whole)
    normalise(whole)
    assert apply_and_check(Cleanup(), whole).applied["no-op slice"] == 1


def test_old_pads_have_their_sizes_as_attribute() -> None:
    model = make_model("agraph (float[4] x) => (float[4] y) { a = Pad<pads = [0, 0]>(x) y = Relu(a) }", 10)
    assert apply_and_check(Cleanup(), model).applied["no-op pad"] == 1

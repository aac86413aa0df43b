"""Initial states that are zero are left out."""

import numpy as np
import pytest

from graphopt.passes.states import drop_zero_states
from tests.conftest import make_model, random_feeds, reference
from tests.passes.prune.checking import ints, random

STATES = {
    "constant": ("", "z"),
    "filled": ("n = Identity(s) h = ConstantOfShape(n)", "h"),
    "expanded": ("h = Expand(o, s)", "h"),
    "sliced and turned": (
        "l = ConstantOfShape(s) m = Transpose <perm = [2,1,0]> (l) h = Transpose <perm = [2,1,0]> (m)",
        "h",
    ),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, body: str, states: str, **constants: np.ndarray):
    text = f"agraph (float[4,2,3] x, float[1,2,5] given) => (float[4,1,2,5] y) {{ {body} y = {op} <hidden_size = 5> (x, w, r, , {states}) }}"
    zeros = {"z": np.zeros((1, 2, 5), np.float32), "o": np.zeros((1, 1, 1), np.float32), "s": ints(1, 2, 5)}
    weights = {"w": random(1, GATES[op] * 5, 3), "r": random(1, GATES[op] * 5, 5)}
    return make_model(text, **{**zeros, **weights, **constants})


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("name", STATES)
def test_zeros_are_left_out(op: str, name: str) -> None:
    body, state = STATES[name]
    count = 2 if op == "LSTM" else 1
    model = recurrent(op, body, ", ".join(["", *[state] * count]))
    feeds = random_feeds(model)
    before = reference(model, feeds)
    outcome = drop_zero_states(model)
    assert outcome.applied == {"zero initial state": count}
    node = next(each for each in model.graph if each.op_type == op)
    assert not any(node.inputs[5:])
    np.testing.assert_array_equal(reference(model, feeds)[0], before[0])
    assert not drop_zero_states(model).modified


@pytest.mark.parametrize(
    ("body", "state", "constants"),
    [
        ("", "given", {}),
        ("", "z", {"z": np.full((1, 2, 5), 1e-30, np.float32)}),
        ("", "z", {"z": np.full((1, 2, 5), -0.0, np.float32)}),
        ("h = ConstantOfShape <value = float[1] {0.5}> (s)", "h", {}),
        ("t = Sub(z, given) h = Identity(t)", "h", {}),
    ],
)
def test_others_stay(body: str, state: str, constants: dict[str, np.ndarray]) -> None:
    model = recurrent("GRU", body, f", {state}", **constants)
    outcome = drop_zero_states(model)
    assert not outcome.modified
    assert not outcome.applied


def test_one_of_two_states() -> None:
    model = recurrent("LSTM", "", ", given, z")
    assert drop_zero_states(model).applied == {"zero initial state": 1}

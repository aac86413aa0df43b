"""Cells of recurrent operators."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.rules.recurrent import GATES
from tests.conftest import make_model
from tests.passes.prune.checking import check_exact, ints, pruned, random, ready

CELLS = 5
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def chain(op: str, direction: str, extra: str = "", **constants: np.ndarray):
    """A product that makes 6 features, a recurrent operator, and a product that reads its cells."""
    wide, gates = DIRECTIONS[direction], GATES[op]
    text = f"""agraph (float[4,2,3] x) => (float[4,2,6] z) {{
        p = MatMul(x, k) y = {op} <hidden_size = {CELLS}, direction = "{direction}"> (p, w, r, b{extra})
        t = Transpose <perm = [0,2,1,3]> (y) u = Reshape(t, n) z = MatMul(u, v) }}"""
    weights = {
        "k": random(3, 6),
        "w": random(wide, gates * CELLS, 6),
        "r": random(wide, gates * CELLS, CELLS),
        "b": random(wide, 2 * gates * CELLS),
        "n": ints(0, 0, -1),
        "v": random(wide * CELLS, 6),
    }
    return ready(make_model(text, **weights, **constants))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", GATES)
def test_cells_and_inputs(op: str, direction: str) -> None:
    inputs, cells = check_exact(chain(op, direction))
    assert (inputs.size, inputs.nodes) == (6, ["MatMul_0", f"{op}_0"])
    assert (cells.size, cells.nodes) == (CELLS, [f"{op}_0", "MatMul_1"])


def test_states_and_peepholes() -> None:
    states = {"h": random(1, 2, CELLS), "c": random(1, 2, CELLS, seed=1), "q": random(1, 3 * CELLS)}
    assert [group.size for group in check_exact(chain("LSTM", "forward", ", , h, c, q", **states))] == [
        6,
        CELLS,
    ]


def test_the_node_says_how_many_cells_there_are() -> None:
    model = pruned(chain("GRU", "bidirectional"), {"GRU_0": np.array([1, 0, 1, 1, 0], bool)})
    node = model.graph.node("GRU_0")
    assert node.attributes["hidden_size"].value == 3
    assert [value.shape.numpy() for value in node.inputs[1:4]] == [(2, 9, 6), (2, 9, 3), (2, 18)]


LAST = "agraph (float[4,2,3] x{inputs}) => (float[1,2,6] z) {{ p = MatMul(x, k) y, l = LSTM <hidden_size = 5> (p, w, r, , , {state}) z = MatMul(l, v) }}"


def last(inputs: str, state: str):
    weights = {"k": random(3, 6), "w": random(1, 20, 6), "r": random(1, 20, CELLS), "v": random(CELLS, 6)}
    return ready(make_model(LAST.format(inputs=inputs, state=state), **weights))


def test_the_last_state_alone() -> None:
    assert [group.size for group in check_exact(last("", ""))] == [6, CELLS]


def test_a_state_that_is_an_input_keeps_cells() -> None:
    found = find_groups(last(", float[1,2,5] h", "h"))
    assert [group.name for group in found.groups] == ["MatMul_0"]
    assert found.whole[0].reason == "LSTM 'LSTM_0' starts from a state of that size"

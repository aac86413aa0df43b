"""LSTM, GRU and RNN next to ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

from tests.training.executor.harness import case, check, floats

TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": 3, "GRU": 2, "RNN": 2}
LENGTHS = np.array([5, 2, 4], np.int32)
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [{}, {"input_forget": 1}, {"clip": 0.3}, {"activations": ["HardSigmoid", "Relu", "Softsign"]}],
    "GRU": [{}, {"linear_before_reset": 1}, {"clip": 0.3}, {"activations": ["HardSigmoid", "Relu"]}],
    "RNN": [{}, {"clip": 0.3}, {"activations": ["Relu"]}],
}


def operands(
    op: str, directions: int, lengths: np.ndarray | None, everything: bool
) -> list[np.ndarray | None]:
    rows = GATES[op] * HIDDEN
    found: list[np.ndarray | None] = [
        floats(TIME, BATCH, INPUT),
        floats(directions, rows, INPUT),
        floats(directions, rows, HIDDEN),
        floats(directions, 2 * rows) if everything else None,
        lengths,
    ]
    if not everything:
        return found
    states = [floats(directions, BATCH, HIDDEN) for _ in range(OUTPUTS[op] - 1)]
    peepholes = [floats(directions, 3 * HIDDEN)] if op == "LSTM" else []
    return [*found, *states, *peepholes]


@pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "lengths"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
def test_directions(op: str, direction: str, lengths: np.ndarray | None, everything: bool) -> None:
    given = operands(op, 2 if direction == "bidirectional" else 1, lengths, everything)
    check(case(op, *given, outputs=OUTPUTS[op], direction=direction, hidden_size=HIDDEN))


@pytest.mark.parametrize(("op", "variant"), [(op, each) for op in VARIANTS for each in VARIANTS[op]], ids=str)
def test_variants(op: str, variant: dict[str, Any]) -> None:
    given = operands(op, 1, None, everything=True)
    check(case(op, *given, outputs=OUTPUTS[op], hidden_size=HIDDEN, **variant))

"""LSTM, GRU and RNN against ONNX Runtime: directions, activations, states, lengths, peepholes."""

from typing import Any

import numpy as np
import pytest

from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, assert_same, compiled, fixed, ir, models

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}
random = np.random.default_rng(7)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (random.standard_normal(shape) * 0.5).astype(dtype)


def network(
    nodes: Nodes,
    op: str,
    steps: int,
    batch: int,
    features: int,
    hidden: int,
    *,
    constant: bool = True,
    states: bool = False,
    lengths: Any = None,
    peepholes: bool = False,
    bias: bool = True,
    **attributes: Any,
) -> None:
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * hidden
    keep = fixed if constant else np.asarray
    operands: list[Any] = [
        normal(steps, batch, features),
        keep(normal(directions, rows, features)),
        keep(normal(directions, rows, hidden)),
        keep(normal(directions, 2 * rows)) if bias else None,
        None if lengths is None else np.asarray(lengths, np.int32),
    ]
    if states:
        operands += [normal(directions, batch, hidden) for _ in range(STATES[op])]
    if peepholes:
        operands += [None] * (7 - len(operands)) + [keep(normal(directions, 3 * hidden))]
    nodes.add(op, *operands, outputs=1 + STATES[op], hidden_size=hidden, **attributes)


@pytest.mark.parametrize("op", GATES)
def test_directions_and_sizes(op: str) -> None:
    nodes = Nodes(opset=14)
    network(nodes, op, 5, 3, 7, 6)
    network(nodes, op, 4, 1, 16, 32, direction="reverse", states=True)
    network(nodes, op, 3, 2, 5, 17, direction="bidirectional", states=True, constant=False)
    network(nodes, op, 1, 1, 1, 1, bias=False)
    network(nodes, op, 2, 33, 9, 4, direction="bidirectional")
    nodes.check()


@pytest.mark.parametrize("op", GATES)
def test_lengths(op: str) -> None:
    nodes = Nodes(opset=14)
    for direction in ("forward", "reverse", "bidirectional"):
        network(nodes, op, 5, 3, 4, 6, lengths=[5, 2, 3], direction=direction, states=True)
    network(nodes, op, 5, 3, 4, 6, lengths=[1, 5, 4])
    nodes.check()


def test_gru_applies_the_reset_gate_after_the_linear_transformation() -> None:
    nodes = Nodes(opset=14)
    for bias in (True, False):
        network(nodes, "GRU", 5, 3, 4, 6, linear_before_reset=1, bias=bias)
        network(nodes, "GRU", 3, 9, 4, 16, linear_before_reset=1, bias=bias, direction="bidirectional")
    network(nodes, "GRU", 5, 3, 4, 18, linear_before_reset=1, constant=False, lengths=[3, 5, 1], states=True)
    nodes.check()


def test_lstm_peepholes_and_coupled_gates() -> None:
    nodes = Nodes(opset=14)
    network(nodes, "LSTM", 4, 2, 3, 5, peepholes=True)
    network(
        nodes, "LSTM", 4, 2, 3, 19, peepholes=True, states=True, direction="bidirectional", constant=False
    )
    network(nodes, "LSTM", 4, 2, 3, 5, input_forget=1, states=True)
    nodes.check()


@pytest.mark.parametrize("op", GATES)
def test_clip(op: str) -> None:
    nodes = Nodes(opset=14)
    network(nodes, op, 4, 2, 3, 5, clip=0.3)
    nodes.check()


FUNCTIONS = [
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("Relu", {}),
    ("Softsign", {}),
    ("Softplus", {}),
    ("Affine", {"activation_alpha": [0.4], "activation_beta": [0.1]}),
    ("LeakyRelu", {"activation_alpha": [0.2]}),
    ("ThresholdedRelu", {"activation_alpha": [0.3]}),
    ("ScaledTanh", {"activation_alpha": [0.8], "activation_beta": [0.7]}),
    ("HardSigmoid", {"activation_alpha": [0.3], "activation_beta": [0.4]}),
    ("Elu", {"activation_alpha": [0.7]}),
]


def test_activations_of_rnn() -> None:
    nodes = Nodes(opset=14)
    for name, parameters in FUNCTIONS:
        network(nodes, "RNN", 3, 2, 4, 18, activations=[name], **parameters)
    nodes.check()


def test_alphas_are_consumed_in_order_and_directions_may_differ() -> None:
    nodes = Nodes(opset=14)
    network(
        nodes,
        "LSTM",
        3,
        2,
        4,
        6,
        direction="bidirectional",
        activations=["HardSigmoid", "Tanh", "LeakyRelu", "Sigmoid", "Affine", "Tanh"],
        activation_alpha=[0.25, 0.3, 0.5],
        activation_beta=[0.5, 0.1],
    )
    nodes.check()


@pytest.mark.parametrize("op", GATES)
def test_batch_first(op: str) -> None:
    """ONNX Runtime lacks layout=1; the reference is the same network with its operands transposed."""
    hidden, rows = 6, GATES[op] * 6
    x, state = normal(5, 3, 4), normal(1, 3, hidden)
    weights = [fixed(normal(1, rows, 4)), fixed(normal(1, rows, hidden)), fixed(normal(1, 2 * rows))]
    results = []
    for layout in (0, 1):
        swap = (lambda a: a.swapaxes(0, 1).copy()) if layout else np.asarray
        nodes = Nodes(opset=14)
        nodes.add(op, swap(x), *weights, None, swap(state), outputs=2, hidden_size=hidden, layout=layout)
        model = ir.from_proto(nodes.proto())
        models.normalise(model)
        results.append(compiled(model, nodes.feeds))
    (steps_first, last), (rows_first, last_of_rows) = results
    assert_same("Y", rows_first.transpose(1, 2, 0, 3), steps_first)
    assert_same("Y_h", last_of_rows.swapaxes(0, 1), last)


def test_elementwise_operators_follow() -> None:
    nodes = Nodes(opset=14)
    network(nodes, "GRU", 3, 2, 4, 6)
    nodes.add("Relu", nodes.outputs[0])
    nodes.check()


def test_unknown_activation_is_refused() -> None:
    nodes = Nodes(opset=14)
    network(nodes, "RNN", 3, 2, 4, 6, activations=["Swish"])
    with pytest.raises(UnsupportedError, match="'Swish'"):
        compiled(ir.from_proto(nodes.proto()), nodes.feeds)

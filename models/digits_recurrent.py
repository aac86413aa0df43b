"""A recurrent network that reads an image row by row: a bidirectional LSTM, then a GRU."""

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from convolutions import linear
from digits import Split
from graph import Graph
from training import Weights, shift, train, weights

DESCRIPTION = "recurrent net: bidirectional LSTM, GRU, Transpose, Squeeze, Gemm"

HIDDEN = 32
# Where torch keeps the gates that ONNX wants in the order i, o, f, c (LSTM) and z, r, h (GRU).
LSTM_GATES = (0, 3, 1, 2)
GRU_GATES = (1, 0, 2)


class Net(nn.Module):
    """Eight rows of eight pixels -> 10 logits from the last state of the GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, HIDDEN, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(2 * HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        sequence, _ = self.lstm(image[:, 0] / 16)
        _, last = self.gru(sequence)
        return self.head(last[0])


def build(split: Split) -> onnx.ModelProto:
    """Train and export; input ``rows`` [N, 8, 8] with values 0..16, output ``logits`` [N, 10]."""
    torch.manual_seed(0)
    net = Net()
    train(net, split, epochs=60, augment=shift)
    return export(weights(net))


def export(weights: Weights) -> onnx.ModelProto:
    """The graph with time as the first axis inside, as ONNX's recurrent operators have it."""
    graph = Graph("digits_recurrent")
    rows = graph.input("rows", ["N", 8, 8])
    value = graph.add("Div", [rows, graph.constant("white", 16.0)], "scaled")
    value = graph.add("Transpose", [value], "time_major", perm=[1, 0, 2])
    constants = _constants(graph, weights, "lstm", ("", "_reverse"), LSTM_GATES)
    value = graph.add("LSTM", [value, *constants], "lstm", hidden_size=HIDDEN, direction="bidirectional")
    value = graph.add("Transpose", [value], "side_by_side", perm=[0, 2, 1, 3])
    value = graph.add("Reshape", [value, graph.ints("features", [0, 0, 2 * HIDDEN])], "joined")
    constants = _constants(graph, weights, "gru", ("",), GRU_GATES)
    last = graph.add_many(
        "GRU", [value, *constants], "gru", ["", "last"], hidden_size=HIDDEN, linear_before_reset=1
    )[1]
    value = graph.add("Squeeze", [last, graph.ints("direction", [0])], "state")
    return graph.model(linear(graph, value, weights, "head", "logits"), ["N", 10])


def _constants(
    graph: Graph, weights: Weights, name: str, directions: Sequence[str], gates: Sequence[int]
) -> list[str]:
    """W, R and B of an ONNX recurrent operator, directions stacked along the first axis."""

    def stacked(*parts: str) -> NDArray[np.float32]:
        each = [
            np.concatenate([_reorder(weights[f"{name}.{part}_l0{suffix}"], gates) for part in parts])
            for suffix in directions
        ]
        return np.stack(each)

    return [
        graph.constant(f"{name}.W", stacked("weight_ih")),
        graph.constant(f"{name}.R", stacked("weight_hh")),
        graph.constant(f"{name}.B", stacked("bias_ih", "bias_hh")),
    ]


def _reorder(array: NDArray[np.float32], gates: Sequence[int]) -> NDArray[np.float32]:
    blocks = np.split(array, len(gates))
    return np.concatenate([blocks[gate] for gate in gates])

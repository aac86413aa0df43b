"""A transformer encoder that reads the 64 pixels of an image as tokens, each one of 17 grey levels."""

import math

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import nn

from convolutions import linear
from digits import LEVELS, Split
from graph import Graph
from training import Weights, train, weights

DESCRIPTION = (
    "transformer encoder: Gather, LayerNorm and GELU from primitives, masked attention, mean pooling"
)

WIDTH, HEADS, LAYERS, PIXELS = 48, 4, 2, 64
HEAD = WIDTH // HEADS
MASKED = -1e4


class Layer(nn.Module):
    """Pre-norm self-attention and a feed-forward part of twice the width."""

    def __init__(self) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        normed = self.norm0(states)
        query, key, value = (
            part(normed).unflatten(2, (HEADS, HEAD)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) / math.sqrt(HEAD) + bias).softmax(-1)
        states = states + self.out((weights @ value).transpose(1, 2).flatten(2))
        return states + self.down(nn.functional.gelu(self.up(self.norm1(states))))


class Net(nn.Module):
    """Embeddings, two layers, masked mean, 10 logits; trained with pixels hidden at random."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(LEVELS, WIDTH)
        self.positions = nn.Embedding(PIXELS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = image.flatten(1).long()
        hidden = torch.rand(tokens.shape) < (0.1 if self.training else 0.0)
        mask = (~hidden).float()
        states = self.tokens(tokens) + self.positions.weight
        bias = (1 - mask)[:, None, None, :] * MASKED
        for layer in self.layers:
            states = layer(states, bias)
        weights = mask[:, :, None]
        return self.head((self.norm(states) * weights).sum(1) / weights.sum(1))


def build(split: Split) -> onnx.ModelProto:
    """Train and export; inputs ``input_ids``, ``attention_mask`` int64 [N, 64], output ``logits`` [N, 10]."""
    torch.manual_seed(0)
    net = Net()
    train(net, split, epochs=50, rate=2e-3)
    return export(weights(net))


def export(weights: Weights) -> onnx.ModelProto:
    """The graph with normalisation, GELU and attention written out in primitive operators."""
    graph = Graph("digits_transformer")
    ids = graph.input("input_ids", ["N", PIXELS], TensorProto.INT64)
    mask = graph.input("attention_mask", ["N", PIXELS], TensorProto.INT64)
    visible = graph.add("Cast", [mask], "visible", to=TensorProto.FLOAT)
    bias = _bias(graph, visible)
    states = graph.add("Gather", [graph.constant("tokens", weights["tokens.weight"]), ids], "embedded")
    positions = graph.constant("positions", weights["positions.weight"])
    states = graph.add("Add", [states, positions], "placed")
    for index in range(LAYERS):
        states = _attention(graph, states, bias, weights, f"layers.{index}")
        states = _feed_forward(graph, states, weights, f"layers.{index}")
    states = _layer_norm(graph, states, weights, "norm")
    pooled = _masked_mean(graph, states, visible)
    return graph.model(linear(graph, pooled, weights, "head", "logits"), ["N", 10])


def _bias(graph: Graph, visible: str) -> str:
    """0 where a token is visible, a large negative number where it is not; [N, 1, 1, 64]."""
    wide = graph.add("Unsqueeze", [visible, graph.ints("mask_axes", [1, 2])], "mask_wide")
    hidden = graph.add("Sub", [graph.constant("one", 1.0), wide], "mask_hidden")
    return graph.add("Mul", [hidden, graph.constant("masked", MASKED)], "mask_bias")


def _dense(graph: Graph, value: str, weights: Weights, name: str) -> str:
    product = graph.add(
        "MatMul", [value, graph.constant(f"{name}.weight", weights[f"{name}.weight"].T)], f"{name}.product"
    )
    return graph.add("Add", [graph.constant(f"{name}.bias", weights[f"{name}.bias"]), product], name)


def _layer_norm(graph: Graph, value: str, weights: Weights, name: str) -> str:
    mean = graph.add("ReduceMean", [value], f"{name}.mean", axes=[-1])
    centred = graph.add("Sub", [value, mean], f"{name}.centred")
    square = graph.add("Pow", [centred, graph.constant(f"{name}.two", 2.0)], f"{name}.square")
    variance = graph.add("ReduceMean", [square], f"{name}.variance", axes=[-1])
    shifted = graph.add("Add", [variance, graph.constant(f"{name}.epsilon", 1e-5)], f"{name}.shifted")
    normed = graph.add("Div", [centred, graph.add("Sqrt", [shifted], f"{name}.deviation")], f"{name}.normed")
    scale = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
    scaled = graph.add("Mul", [normed, scale], f"{name}.scaled")
    return graph.add("Add", [scaled, graph.constant(f"{name}.bias", weights[f"{name}.bias"])], name)


def _gelu(graph: Graph, value: str, name: str) -> str:
    scaled = graph.add("Div", [value, graph.constant(f"{name}.root", math.sqrt(2))], f"{name}.scaled")
    error = graph.add("Erf", [scaled], f"{name}.erf")
    shifted = graph.add("Add", [error, graph.constant(f"{name}.one", 1.0)], f"{name}.shifted")
    product = graph.add("Mul", [value, shifted], f"{name}.product")
    return graph.add("Mul", [product, graph.constant(f"{name}.half", 0.5)], name)


def _heads(graph: Graph, value: str, weights: Weights, name: str, perm: list[int]) -> str:
    """Project and split into heads: [N, 64, WIDTH] -> [N, HEADS, 64, HEAD] or its transpose for the keys."""
    projected = _dense(graph, value, weights, name)
    split = graph.ints(f"{name}.heads", [0, 0, HEADS, HEAD])
    return graph.add(
        "Transpose", [graph.add("Reshape", [projected, split], f"{name}.split")], f"{name}.moved", perm=perm
    )


def _attention(graph: Graph, states: str, bias: str, weights: Weights, name: str) -> str:
    normed = _layer_norm(graph, states, weights, f"{name}.norm0")
    query = _heads(graph, normed, weights, f"{name}.query", [0, 2, 1, 3])
    key = _heads(graph, normed, weights, f"{name}.key", [0, 2, 3, 1])
    value = _heads(graph, normed, weights, f"{name}.value", [0, 2, 1, 3])
    scores = graph.add("MatMul", [query, key], f"{name}.scores")
    root = graph.constant(f"{name}.root", np.sqrt(HEAD))
    scaled = graph.add("Div", [scores, root], f"{name}.scaled")
    masked = graph.add("Add", [scaled, bias], f"{name}.masked")
    attention = graph.add("Softmax", [masked], f"{name}.attention", axis=-1)
    context = graph.add("MatMul", [attention, value], f"{name}.context")
    moved = graph.add("Transpose", [context], f"{name}.merged", perm=[0, 2, 1, 3])
    joined = graph.add("Reshape", [moved, graph.ints(f"{name}.width", [0, 0, WIDTH])], f"{name}.joined")
    return graph.add("Add", [states, _dense(graph, joined, weights, f"{name}.out")], f"{name}.attended")


def _feed_forward(graph: Graph, states: str, weights: Weights, name: str) -> str:
    normed = _layer_norm(graph, states, weights, f"{name}.norm1")
    inner = _gelu(graph, _dense(graph, normed, weights, f"{name}.up"), f"{name}.gelu")
    return graph.add("Add", [states, _dense(graph, inner, weights, f"{name}.down")], f"{name}.fed")


def _masked_mean(graph: Graph, states: str, visible: str) -> str:
    weights = graph.add("Unsqueeze", [visible, graph.ints("last_axis", [2])], "weights")
    weighted = graph.add("Mul", [states, weights], "weighted")
    tokens = graph.ints("token_axis", [1])
    total = graph.add("ReduceSum", [weighted, tokens], "total", keepdims=0)
    count = graph.add("ReduceSum", [weights, tokens], "count", keepdims=0)
    return graph.add("Div", [total, count], "pooled")

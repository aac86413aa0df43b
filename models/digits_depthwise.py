"""A residual network of inverted bottlenecks with depthwise convolutions, in the manner of MobileNetV2."""

import onnx
import torch
from torch import nn

from convolutions import conv_norm, linear
from digits import Split
from graph import Graph
from training import Weights, shift, train, weights

DESCRIPTION = "residual depthwise net: grouped Conv, BatchNormalization, Clip, Add, GlobalAveragePool, Gemm"

STEM = 16
# Channels in and out, and stride; a block with equal channels and stride 1 has a residual connection.
BLOCKS = ((16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1))
EXPANSION = 3


class Block(nn.Module):
    """Expand with 1x1, filter with depthwise 3x3, project with 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = inputs * EXPANSION
        self.residual = inputs == outputs and stride == 1
        self.expand = nn.Conv2d(inputs, middle, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(middle)
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(middle)
        self.project = nn.Conv2d(middle, outputs, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(outputs)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        inner = self.expand_norm(self.expand(value)).clamp(0, 6)
        inner = self.depthwise_norm(self.depthwise(inner)).clamp(0, 6)
        inner = self.project_norm(self.project(inner))
        return value + inner if self.residual else inner


class Net(nn.Module):
    """Stem, four blocks, global average, 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM)
        self.blocks = nn.Sequential(*(Block(*sizes) for sizes in BLOCKS))
        self.head = nn.Linear(BLOCKS[-1][1], 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = self.stem_norm(self.stem(image / 16)).clamp(0, 6)
        return self.head(self.blocks(value).mean((2, 3)))


def build(split: Split) -> onnx.ModelProto:
    """Train and export; input ``image`` [N, 1, 8, 8] with values 0..16, output ``logits`` [N, 10]."""
    torch.manual_seed(0)
    net = Net()
    train(net, split, epochs=60, augment=shift)
    return export(weights(net))


def export(weights: Weights) -> onnx.ModelProto:
    """The graph with ReLU6 as Clip and its batch normalisations unfolded."""
    graph = Graph("digits_depthwise")
    image = graph.input("image", ["N", 1, 8, 8])
    bounds = [graph.constant("zero", 0.0), graph.constant("six", 6.0)]
    value = graph.add("Div", [image, graph.constant("white", 16.0)], "scaled")
    value = conv_norm(graph, value, weights, "stem", "stem_norm")
    value = graph.add("Clip", [value, *bounds], "stem_clip")
    for index, sizes in enumerate(BLOCKS):
        value = _block(graph, value, weights, f"blocks.{index}", sizes, bounds)
    value = graph.add("GlobalAveragePool", [value], "average")
    value = graph.add("Flatten", [value], "flat", axis=1)
    return graph.model(linear(graph, value, weights, "head", "logits"), ["N", 10])


def _block(
    graph: Graph, value: str, weights: Weights, name: str, sizes: tuple[int, int, int], bounds: list[str]
) -> str:
    inputs, outputs, stride = sizes
    middle = inputs * EXPANSION
    inner = conv_norm(graph, value, weights, f"{name}.expand", f"{name}.expand_norm")
    inner = graph.add("Clip", [inner, *bounds], f"{name}.expand_clip")
    inner = conv_norm(
        graph, inner, weights, f"{name}.depthwise", f"{name}.depthwise_norm", stride=stride, groups=middle
    )
    inner = graph.add("Clip", [inner, *bounds], f"{name}.depthwise_clip")
    inner = conv_norm(graph, inner, weights, f"{name}.project", f"{name}.project_norm")
    if inputs != outputs or stride != 1:
        return inner
    return graph.add("Add", [value, inner], f"{name}.sum")

"""A plain convolutional network: two stages of convolution, batch normalisation, ReLU and pooling."""

import onnx
import torch
from torch import nn

from convolutions import conv_norm, linear
from digits import Split
from graph import Graph
from training import Weights, shift, train, weights

DESCRIPTION = "plain CNN: Conv, BatchNormalization, Relu, MaxPool, Flatten, Gemm, Softmax"


class Net(nn.Module):
    """1x8x8 -> three numbers of channels, pooled twice -> 10 logits."""

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 32)) -> None:
        super().__init__()
        first, second, third = channels
        self.conv0 = nn.Conv2d(1, first, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(first)
        self.conv1 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(second)
        self.conv2 = nn.Conv2d(second, third, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(third)
        self.head = nn.Linear(4 * third, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = self.norm0(self.conv0(image / 16)).relu()
        value = nn.functional.max_pool2d(self.norm1(self.conv1(value)).relu(), 2)
        value = nn.functional.max_pool2d(self.norm2(self.conv2(value)).relu(), 2)
        return self.head(value.flatten(1))


def build(split: Split) -> onnx.ModelProto:
    """Train and export; input ``image`` [N, 1, 8, 8] with values 0..16, output ``probabilities`` [N, 10]."""
    torch.manual_seed(0)
    net = Net()
    train(net, split, epochs=60, augment=shift)
    return export(weights(net))


def export(weights: Weights, name: str = "digits_cnn") -> onnx.ModelProto:
    """The graph with its batch normalisations unfolded."""
    graph = Graph(name)
    image = graph.input("image", ["N", 1, 8, 8])
    value = graph.add("Div", [image, graph.constant("white", 16.0)], "scaled")
    for index in range(3):
        value = conv_norm(graph, value, weights, f"conv{index}", f"norm{index}")
        value = graph.add("Relu", [value], f"relu{index}")
        if index > 0:
            value = graph.add("MaxPool", [value], f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
    value = graph.add("Flatten", [value], "flat", axis=1)
    logits = linear(graph, value, weights, "head", "logits")
    return graph.model(graph.add("Softmax", [logits], "probabilities", axis=-1), ["N", 10])

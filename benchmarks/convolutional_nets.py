"""Compact torch classifiers of images, one for each way in which a family of networks ties channels together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

CLASSES = 10
Activation = Callable[[], nn.Module]


def conv_norm(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, act: Activation = nn.ReLU
) -> nn.Sequential:
    """Convolution of the same padding without a bias, batch normalisation, activation."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


class Classifier(nn.Sequential):
    """Layers, mean over the positions, logits."""

    def __init__(self, *layers: nn.Module, width: int) -> None:
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))
        super().__init__(*layers, *head)


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)): the channels of both ends go together (He et al., 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(inputs, outputs, 1),
            conv_norm(outputs, outputs, 3, stride, groups),
            conv_norm(outputs, outputs, 1, act=nn.Identity),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride, act=nn.Identity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet() -> nn.Module:
    """Bottlenecks with and without a convolution on the shortcut."""
    blocks = (Residual(16, 16), Residual(16, 32, 2), Residual(32, 32))
    return Classifier(conv_norm(3, 16), *blocks, width=32)


def resnext() -> nn.Module:
    """Bottlenecks of grouped convolutions (Xie et al., 2017)."""
    blocks = (Residual(32, 32, groups=8), Residual(32, 64, 2, groups=8), Residual(64, 64, groups=8))
    return Classifier(conv_norm(3, 32), *blocks, width=64)


def vgg() -> nn.Module:
    """Convolutions with biases in a chain, and a Flatten that interleaves channels with positions."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 24), (24, 32)):
        norm = nn.BatchNorm2d(outputs)
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)]
    head = (nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES))
    return nn.Sequential(*layers, *head)


class DenseLayer(nn.Module):
    """Appends `growth` channels to its input (Huang et al., 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 32, 1, bias=False))
        self.grow = nn.Sequential(
            nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.grow(self.reduce(x))], 1)


def densenet() -> nn.Module:
    """Two dense blocks: every normalisation reads slices of many convolutions."""
    first = [DenseLayer(16 + 8 * index, 8) for index in range(3)]
    transition = (nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 20, 1, bias=False), nn.AvgPool2d(2))
    second = [DenseLayer(20 + 8 * index, 8) for index in range(3)]
    end = (nn.BatchNorm2d(44), nn.ReLU())
    return Classifier(conv_norm(3, 16, stride=2), *first, *transition, *second, *end, width=44)


class SqueezeExcite(nn.Module):
    """Scales channels by gates of their means (Hu et al., 2018)."""

    def __init__(self, width: int, squeezed: int, gate: Activation) -> None:
        super().__init__()
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, width, 1),
            gate(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gates(x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze and excite, project; a shortcut between the narrow ends (Sandler et al., 2018)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, act: Activation, gate: Activation | None = None
    ) -> None:
        super().__init__()
        inner = 4 * inputs
        self.body = nn.Sequential(
            conv_norm(inputs, inner, 1, act=act),
            conv_norm(inner, inner, 3, stride, inner, act),
            SqueezeExcite(inner, inputs, gate) if gate else nn.Identity(),
            conv_norm(inner, outputs, 1, act=nn.Identity),
        )
        self.shortcut = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


def _mobile(act: Activation, gate: Activation | None = None) -> nn.Module:
    sizes = ((16, 16, 1), (16, 24, 2), (24, 24, 1))
    blocks = [InvertedResidual(inputs, outputs, stride, act, gate) for inputs, outputs, stride in sizes]
    return Classifier(conv_norm(3, 16, stride=2, act=act), *blocks, conv_norm(24, 64, 1, act=act), width=64)


def mobilenet_v2() -> nn.Module:
    """Inverted residuals with ReLU6."""
    return _mobile(nn.ReLU6)


def mobilenet_v3() -> nn.Module:
    """Inverted residuals with hard swish, and gates of hard sigmoids (Howard et al., 2019)."""
    return _mobile(nn.Hardswish, nn.Hardsigmoid)


def efficientnet() -> nn.Module:
    """Inverted residuals with SiLU, and gates of sigmoids (Tan and Le, 2019)."""
    return _mobile(nn.SiLU, nn.Sigmoid)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved, then both are interleaved (Ma et al., 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            conv_norm(half, half, 1),
            conv_norm(half, half, 3, groups=half, act=nn.Identity),
            conv_norm(half, half, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        passed, convolved = x.chunk(2, 1)
        joined = torch.cat([passed, self.branch(convolved)], 1)
        batch, channels, height, width = joined.shape
        return joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)


def shufflenet() -> nn.Module:
    """Three units, and convolutions around them."""
    units = [ShuffleUnit(24) for _ in range(3)]
    return Classifier(conv_norm(3, 24, stride=2), *units, conv_norm(24, 48, 1), width=48)


class GroupNormBlock(nn.Module):
    """Residual of two convolutions, each behind a group normalisation and SiLU (as in diffusion models)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)),
            *(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def groupnorm() -> nn.Module:
    """Channels whose statistics are shared within groups."""
    blocks = (GroupNormBlock(32, 8), GroupNormBlock(32, 4))
    return Classifier(nn.Conv2d(3, 32, 3, padding=1), *blocks, width=32)


class ConvNextBlock(nn.Module):
    """Depthwise convolution, then layer normalisation and two products with the channels last (Liu et al., 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.down(nn.functional.gelu(self.up(last)))
        return x + self.scale * inner.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """A patch stem and two blocks."""
    return Classifier(nn.Conv2d(3, 24, 4, 4), ConvNextBlock(24), ConvNextBlock(24), width=24)

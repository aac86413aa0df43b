"""Networks of well-known shapes as torch modules, with seeded weights of few values, so that artifacts of them are small.

Speed does not depend on the values. Scales are chosen so that activations stay about as large as they are in trained networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pixel_nets import Detector

Tensor: TypeAlias = torch.Tensor


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a residual, as in ResNet-50."""

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        out = 4 * middle
        self.conv1, self.norm1 = nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.norm2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.last = nn.Conv2d(middle, out, 1, bias=False), nn.BatchNorm2d(out)
        self.down = None
        if stride != 1 or channels != out:
            self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.last(self.conv3(y)) + (x if self.down is None else self.down(x)))


class ResNet50(nn.Module):
    """arXiv:1512.03385, with strides in the 3x3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        blocks, channels = [], 64
        for middle, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                blocks.append(Bottleneck(channels, middle, stride if number == 0 else 1))
                channels = 4 * middle
        self.blocks, self.classify = nn.Sequential(*blocks), nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.norm(self.stem(x))), 3, 2, 1)
        return self.classify(functional.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))


def convolution(channels: int, out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its batch norm."""
    conv = nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


class Inverted(nn.Module):
    """A depthwise convolution between two of 1x1, as in MobileNetV2."""

    def __init__(self, channels: int, out: int, stride: int, factor: int) -> None:
        super().__init__()
        hidden = channels * factor
        layers = [] if factor == 1 else [*convolution(channels, hidden, 1), nn.ReLU6()]
        layers += [*convolution(hidden, hidden, 3, stride, hidden), nn.ReLU6()]
        conv, norm = convolution(hidden, out, 1)
        self.body, self.conv, self.last = nn.Sequential(*layers), conv, norm
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.conv(self.body(x)))
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """arXiv:1801.04381."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [*convolution(3, 32, 3, 2), nn.ReLU6()], 32
        for factor, out, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for number in range(count):
                layers.append(Inverted(channels, out, stride if number == 0 else 1, factor))
                channels = out
        self.body = nn.Sequential(*layers, *convolution(320, 1280, 1), nn.ReLU6())
        self.classify = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(x).mean((2, 3)))


class Attention(nn.Module):
    """Attention of all heads; `fused` by torch's own operator for it."""

    def __init__(self, size: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.heads, self.fused = heads, fused

    def forward(self, x: Tensor) -> Tensor:
        batch, count, size = x.shape
        width = size // self.heads
        query, key, value = (
            layer(x).view(batch, count, self.heads, width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.fused:
            y = functional.scaled_dot_product_attention(query, key, value)
        else:
            y = torch.softmax(query @ key.transpose(-1, -2) * width**-0.5, -1) @ value
        return self.out(y.transpose(1, 2).reshape(batch, count, size))


class Layer(nn.Module):
    """A layer of a transformer, which normalises before or after its parts."""

    def __init__(self, size: int, heads: int, before: bool, fused: bool) -> None:
        super().__init__()
        self.attention, self.before = Attention(size, heads, fused), before
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.wide, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def _feed(self, x: Tensor) -> Tensor:
        return self.narrow(functional.gelu(self.wide(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.attention(self.norm1(x))
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self._feed(x))


class Bert(nn.Module):
    """BERT behind its embeddings (arXiv:1810.04805)."""

    def __init__(self, size: int, layers: int, fused: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.layers = nn.Sequential(*(Layer(size, 12, False, fused) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.norm(x))


class Vit(nn.Module):
    """ViT-B/16 (arXiv:2010.11929)."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.patch, self.first = nn.Conv2d(3, 768, 16, 16), nn.Parameter(torch.zeros(1, 1, 768))
        self.places, self.norm = nn.Parameter(torch.zeros(1, 197, 768)), nn.LayerNorm(768)
        self.layers = nn.Sequential(*(Layer(768, 12, True, fused) for _ in range(12)))
        self.classify = nn.Linear(768, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.first.expand(x.shape[0], -1, -1), x), 1) + self.places
        return self.classify(self.norm(self.layers(x))[:, 0])


Make = Callable[..., nn.Module]

NETS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "resnet50": (ResNet50, (3, 224, 224)),
    "mobilenet_v2": (MobileNetV2, (3, 224, 224)),
    "bert_base_128": (partial(Bert, 768, 12), (128, 768)),
    "minilm_128": (partial(Bert, 384, 6), (128, 384)),
    "vit_b16": (Vit, (3, 224, 224)),
    "detector": (partial(Detector, 32), (3, 640, 640)),
}
"""What makes a network, and the shape of its input but for the batch. MiniLM-L6 is a BERT (arXiv:2002.10957), and the detector one in the
style of YOLOv8-s."""

FUSED = ("bert_base_128", "minilm_128", "vit_b16")
"""Those that torch has an operator of its own for."""

VALUES = np.array([-1, -0.5, 0.5, 1], np.float32)
DEVIATION = 0.79
"""Root mean square of `VALUES`."""

FEWEST_INPUTS = 16
"""Of small weights that are drawn; others are all equal."""


def network(name: str, **options: bool) -> nn.Module:
    """A network with its weights, ready to run."""
    model, rng = NETS[name][0](**options).eval(), np.random.default_rng(7)
    for label, weights in sorted(model.named_parameters()):
        shape = tuple(weights.shape)
        if weights.ndim > 1 and (weights.numel() > 4096 or weights.shape[1] >= FEWEST_INPUTS):
            gain = 2.0 if weights.ndim == 4 else 1.0
            values = rng.choice(VALUES, shape) * (gain / weights[0].numel()) ** 0.5 / DEVIATION
        elif label.endswith("weight"):
            values = np.full(shape, 0.3 if "last" in label else 1.0)
        else:
            values = rng.standard_normal(shape) * 0.02
        weights.data = torch.from_numpy(values.astype(np.float32))
    return model

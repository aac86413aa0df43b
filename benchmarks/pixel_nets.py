"""Compact torch networks whose outputs are images or boxes: U-Net, super-resolution, a YOLO-style detector."""

from __future__ import annotations

import torch
from torch import nn

from convolutional_nets import conv_norm

CLASSES, BINS = 5, 8
"""Of the detector: classes of objects, and bins of the distribution of each side of a box."""


class UNet(nn.Module):
    """Encoder and decoder with concatenated skips and transposed convolutions (Ronneberger et al., 2015)."""

    def __init__(self, width: int = 12, depth: int = 3) -> None:
        super().__init__()
        widths = [width << level for level in range(depth)]
        self.down = nn.ModuleList(
            self._double(before, after) for before, after in zip([3, *widths], widths, strict=False)
        )
        self.bottom = self._double(widths[-1], 2 * widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in reversed(widths))
        self.joined = nn.ModuleList(self._double(2 * size, size) for size in reversed(widths))
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv_norm(inputs, outputs), conv_norm(outputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class SuperResolution(nn.Module):
    """Sub-pixel convolution: r² channels become r x r pixels (Shi et al., 2016)."""

    def __init__(self, width: int = 24, factor: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 5, padding=2)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width), nn.Conv2d(width, width, 3, padding=1)
        )
        self.grow = nn.Sequential(nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor))
        self.last = nn.Conv2d(width, 3 * factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.first(x)
        return self.shuffle(self.last(self.grow(features + self.body(features))))


class CrossStage(nn.Module):
    """Splits its channels, refines one half again and again, and joins every stage (the C2f block of YOLOv8)."""

    def __init__(self, inputs: int, outputs: int, repeats: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.first = conv_norm(inputs, outputs, 1, act=nn.SiLU)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, act=nn.SiLU), conv_norm(half, half, act=nn.SiLU))
            for _ in range(repeats)
        )
        self.shortcut = shortcut
        self.last = conv_norm((2 + repeats) * half, outputs, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for stage in self.stages:
            refined = stage(parts[-1])
            parts.append(parts[-1] + refined if self.shortcut else refined)
        return self.last(torch.cat(parts, 1))


class PyramidPooling(nn.Module):
    """Joins its input with itself pooled once, twice and three times (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv_norm(width, width // 2, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.last = conv_norm(2 * width, width, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Head(nn.Module):
    """Distributions of the sides of boxes, and scores of classes, as [N, 4 BINS + CLASSES, positions]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.boxes = nn.Sequential(conv_norm(width, 16, act=nn.SiLU), nn.Conv2d(16, 4 * BINS, 1))
        self.scores = nn.Sequential(conv_norm(width, 16, act=nn.SiLU), nn.Conv2d(16, CLASSES, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.boxes(x), self.scores(x)], 1).view(x.shape[0], 4 * BINS + CLASSES, -1)


class Detector(nn.Module):
    """Backbone, neck and three heads; boxes are the expectations of their distributions (Li et al., 2020)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, width, 3, 2, act=nn.SiLU), self._stage(width, 2 * width))
        self.middle = self._stage(2 * width, 4 * width)
        self.deep = nn.Sequential(self._stage(4 * width, 4 * width), PyramidPooling(4 * width))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down = nn.ModuleList(
            [
                CrossStage(8 * width, 4 * width, 1, shortcut=False),
                CrossStage(6 * width, 2 * width, 1, shortcut=False),
            ]
        )
        self.shrink = conv_norm(2 * width, 2 * width, 3, 2, act=nn.SiLU)
        self.bottom_up = CrossStage(6 * width, 4 * width, 1, shortcut=False)
        self.heads = nn.ModuleList(Head(size * width) for size in (2, 4, 4))
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1))

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            conv_norm(inputs, outputs, 3, 2, act=nn.SiLU), CrossStage(outputs, outputs, 2, shortcut=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.stem(x)
        middle = self.middle(fine)
        deep = self.deep(middle)
        joined = self.top_down[0](torch.cat([self.upsample(deep), middle], 1))
        finest = self.top_down[1](torch.cat([self.upsample(joined), fine], 1))
        coarser = self.bottom_up(torch.cat([self.shrink(finest), joined], 1))
        levels = zip(self.heads, (finest, coarser, deep), strict=True)
        return self._decoded(torch.cat([head(level) for head, level in levels], 2))

    def _decoded(self, raw: torch.Tensor) -> torch.Tensor:
        sides, scores = raw.split((4 * BINS, CLASSES), 1)
        distributions = sides.view(raw.shape[0], 4, BINS, -1).transpose(1, 2).softmax(1)
        return torch.cat([(distributions * self.bins).sum(1), scores.sigmoid()], 1)

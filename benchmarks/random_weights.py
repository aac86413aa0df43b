"""Random weights that hide no errors: normalisations that are not the identity, biases that are not zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

SEED = 0
NORMALIZED_BATCH = 8
"""Examples whose mean and variance the batch normalisations get."""


def _he(layer: nn.Module) -> None:
    """He et al., Delving Deep into Rectifiers, 2015."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=0.1)


def _linear(layer: nn.Module) -> None:
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=0.1)


def _normalization(layer: nn.Module) -> None:
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias, std=0.2)


def _embedding(layer: nn.Module) -> None:
    nn.init.normal_(layer.weight)


def _attention(layer: nn.Module) -> None:
    nn.init.normal_(layer.in_proj_weight, std=layer.embed_dim**-0.5)
    nn.init.normal_(layer.in_proj_bias, std=0.1)


DRAWN: Mapping[type[nn.Module], Callable[[nn.Module], None]] = {
    nn.Conv2d: _he,
    nn.ConvTranspose2d: _he,
    nn.Linear: _linear,
    nn.BatchNorm2d: _normalization,
    nn.GroupNorm: _normalization,
    nn.LayerNorm: _normalization,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
}
"""How the weights of a kind of layer are drawn; the others keep those that torch drew."""


def randomized(build: Callable[[], nn.Module], example: torch.Tensor) -> nn.Module:
    """The network in evaluation mode, with weights drawn from one seed; `example` is its first input."""
    torch.manual_seed(SEED)
    net = build().eval()
    for kind, draw in DRAWN.items():
        for layer in net.modules():
            if isinstance(layer, kind):
                draw(layer)
    measure_statistics(net, example)
    return net


def measure_statistics(net: nn.Module, example: torch.Tensor) -> None:
    """Give the batch normalisations the statistics that they see on random examples."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers:
        return
    kept = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(NORMALIZED_BATCH, *example.shape[1:]))
    for layer, momentum in zip(layers, kept, strict=True):
        layer.eval()
        layer.momentum = momentum

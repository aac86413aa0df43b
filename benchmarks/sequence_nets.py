"""Compact torch networks over sequences: transformers and recurrent classifiers."""

from __future__ import annotations

import torch
from torch import nn

VOCABULARY, POSITIONS, CLASSES = 64, 64, 5
MASKED = -1e4


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """[N, T, count * size] -> [N, count, T, size]"""
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Scaled dot-product attention of [N, heads, T, size], joined to [N, T, heads * size] (Vaswani et al., 2017)."""
    scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def causal_mask() -> torch.Tensor:
    """[POSITIONS, POSITIONS]: 0 for what a position may see, else a large negative number."""
    return torch.full((POSITIONS, POSITIONS), MASKED).triu(1)


class EncoderLayer(nn.Module):
    """Attention by separate products and a GELU network, each normalised after its shortcut (Devlin et al., 2019)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        query, key, value = (heads(part(x), self.count) for part in (self.query, self.key, self.value))
        x = self.norms[0](x + self.out(attended(query, key, value, bias)))
        return self.norms[1](x + self.down(nn.functional.gelu(self.up(x))))


class Bert(nn.Module):
    """Token and position tables, two layers, a pooled first token; tokens [N, T], mask [N, T] -> logits."""

    def __init__(self, width: int = 48, count: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(POSITIONS, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(EncoderLayer(width, count) for _ in range(2))
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.tokens(tokens) + self.positions(places))
        bias = (1.0 - mask[:, None, None, :].float()) * MASKED
        for layer in self.layers:
            x = layer(x, bias)
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class CausalBlock(nn.Module):
    """Attention whose query, key and value come packed from one product, under a causal mask (Radford et al., 2019)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", causal_mask())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        packed = self.packed(self.norms[0](x))
        query, key, value = (heads(part, self.count) for part in packed.chunk(3, -1))
        x = x + self.out(attended(query, key, value, self.mask[:length, :length]))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x)), approximate="tanh"))


class Gpt(nn.Module):
    """Two causal blocks; the table of tokens is the last product's weight as well; tokens [N, T] -> logits."""

    def __init__(self, width: int = 48, count: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(POSITIONS, width)
        self.blocks = nn.Sequential(*(CausalBlock(width, count) for _ in range(2)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.blocks(self.tokens(tokens) + self.positions(places)))
        return x @ self.tokens.weight.T


class RmsNorm(nn.Module):
    """x over its root mean square, scaled (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class GroupedQueryBlock(nn.Module):
    """Rotated queries in groups that share a key and a value, and a gated network (Touvron et al., 2023)."""

    def __init__(self, width: int, count: int, shared: int, inner: int) -> None:
        super().__init__()
        self.count, self.shared, size = count, shared, width // count
        self.norms = nn.ModuleList([RmsNorm(width), RmsNorm(width)])
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = (nn.Linear(width, shared * size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        angles = torch.outer(torch.arange(POSITIONS), 10000.0 ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("cosines", torch.cat([angles, angles], 1).cos())
        self.register_buffer("sines", torch.cat([angles, angles], 1).sin())

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        normed = self.norms[0](x)
        query = self._rotated(heads(self.query(normed), self.count))
        key = self._repeated(self._rotated(heads(self.key(normed), self.shared)))
        value = self._repeated(heads(self.value(normed), self.shared))
        x = x + self.out(attended(query, key, value, bias))
        normed = self.norms[1](x)
        return x + self.down(nn.functional.silu(self.gate(normed)) * self.up(normed))

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding (Su et al., 2021)."""
        length = x.shape[2]
        first, second = x.chunk(2, -1)
        return x * self.cosines[:length] + torch.cat([-second, first], -1) * self.sines[:length]

    def _repeated(self, x: torch.Tensor) -> torch.Tensor:
        """[N, shared, T, size] -> [N, count, T, size]"""
        batch, shared, length, size = x.shape
        wide = x[:, :, None].expand(batch, shared, self.count // shared, length, size)
        return wide.reshape(batch, self.count, length, size)


class Llama(nn.Module):
    """Two grouped-query blocks; tokens [N, T] -> logits [N, T, VOCABULARY]."""

    def __init__(self, width: int = 48, count: int = 4, shared: int = 2, inner: int = 80) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(GroupedQueryBlock(width, count, shared, inner) for _ in range(2))
        self.norm, self.head = RmsNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.register_buffer("mask", causal_mask())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x, self.mask[:length, :length])
        return self.head(self.norm(x))


class Vit(nn.Module):
    """Patches, a class token, learnt positions and encoder layers (Dosovitskiy et al., 2021); image -> logits."""

    def __init__(self, width: int = 48, count: int = 4, patch: int = 8, size: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))
        self.layers = nn.Sequential(EncoderLayer(width, count), EncoderLayer(width, count))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(image.shape[0], -1, -1), patches], 1) + self.positions
        return self.head(self.layers(x)[:, 0])


class Recurrent(nn.Module):
    """Table, two bidirectional layers of LSTM or GRU, logits of the last step; tokens [N, T] -> logits."""

    def __init__(self, kind: type[nn.Module], width: int = 24, hidden: int = 20) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.cells = kind(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.cells(self.tokens(tokens))
        return self.head(states[:, -1])

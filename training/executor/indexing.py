"""Operators that read and write elements by their indices, and that look for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always, require

SCATTERS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}
"""ONNX's names of reductions -> torch's."""


def _gather(node: Node) -> Compute:
    axis = node.get("axis", 0)

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        first = axis % x.ndim
        found = x.index_select(first, _counted(indices, x.shape[first]).reshape(-1))
        return found.reshape([*x.shape[:first], *indices.shape, *x.shape[first + 1 :]])

    return gather


def _gather_elements(node: Node) -> Compute:
    axis = node.get("axis", 0)
    return lambda x, indices: x.gather(axis, _counted(indices, x.shape[axis]))


def _gather_nd(node: Node) -> Compute:
    batches = node.get("batch_dims", 0)

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        depth = indices.shape[-1]
        positions = [_counted(indices[..., i], x.shape[batches + i]) for i in range(depth)]
        return x[(*_batch_positions(positions[0], batches), *positions)]

    return gather


def _batch_positions(like: Tensor, batches: int) -> list[Tensor]:
    """Indices that say of every element in which batch it is."""
    return [
        torch.arange(like.shape[i], device=like.device).reshape(
            [-1 if a == i else 1 for a in range(like.ndim)]
        )
        for i in range(batches)
    ]


def _scatter_elements(node: Node) -> Compute:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")

    def scatter(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        positions = _counted(indices, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, positions, updates)
        return x.scatter_reduce(axis, positions, updates, SCATTERS[reduction])

    return scatter


def _scatter_nd(node: Node) -> Compute:
    reduction = node.get("reduction", "none")
    require(reduction in ("none", "add"), f"its reduction is {reduction!r}")

    def scatter(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        positions = [_counted(indices[..., i], x.shape[i]) for i in range(indices.shape[-1])]
        return x.index_put(tuple(positions), updates, accumulate=reduction == "add")

    return scatter


def _counted(indices: Tensor, extent: int) -> Tensor:
    """Indices from the front, where negative ones count from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + extent, indices)


def _one_hot(node: Node) -> Compute:
    """Indices outside of the depth have no hot element."""
    axis = node.get("axis", -1)

    def spread(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        size, place = int(depth.item()), axis % (indices.ndim + 1)
        classes = torch.arange(size, device=indices.device)
        classes = classes.reshape([-1 if i == place else 1 for i in range(indices.ndim + 1)])
        chosen = indices.to(torch.int64).unsqueeze(place)
        hot = torch.where(chosen < 0, chosen + size, chosen) == classes
        return torch.where(hot, values[1], values[0])

    return spread


def _trilu(node: Node) -> Compute:
    cut = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=None: cut(x, 0 if k is None else int(k.item()))


def _top_k(node: Node) -> Compute:
    """Of equal elements the first comes first."""
    axis, largest, fixed = node.get("axis", -1), bool(node.get("largest", 1)), node.get("k")

    def choose(x: Tensor, k: Tensor | None = None) -> Sequence[Tensor]:
        count = fixed if k is None else int(k.item())
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)

    return choose


def _non_zero(x: Tensor) -> Tensor:
    return x.nonzero().T


OPERATORS: dict[str, Maker] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": always(_non_zero),
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "Trilu": _trilu,
}

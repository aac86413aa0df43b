"""Reductions over axes, and running sums."""

from __future__ import annotations

from collections.abc import Callable

import torch

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, integers

Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _over_axes(reduce: Reduce) -> Maker:
    """Axes are an attribute, or an optional input in newer opsets; without any all axes, or if the node says so
    none: then each element is a group of its own."""

    def make(node: Node) -> Compute:
        fixed, keep = node.get("axes"), bool(node.get("keepdims", 1))
        none_is_none = bool(node.get("noop_with_empty_axes", 0))

        def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
            chosen = fixed if axes is None else integers(axes)
            if not chosen and none_is_none:
                return reduce(x[..., None], (x.ndim,), False)
            every = tuple(range(x.ndim))
            return reduce(x, tuple(axis % x.ndim for axis in chosen) if chosen else every, keep)

        return compute

    return make


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _total(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _norm(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.linalg.vector_norm(x, 2, axes, keepdim=keep)


def _position(find: Callable[[Tensor, int, bool], Tensor]) -> Maker:
    """The index of an extreme element; of equal ones the first, or the last if the node says so."""

    def make(node: Node) -> Compute:
        axis, keep, last = (
            node.get("axis", 0),
            bool(node.get("keepdims", 1)),
            node.get("select_last_index", 0),
        )
        if not last:
            return lambda x: find(x, axis, keep)
        return lambda x: x.shape[axis] - 1 - find(x.flip(axis), axis, keep)

    return make


def _cumulative_sum(node: Node) -> Compute:
    exclusive, reverse = bool(node.get("exclusive", 0)), bool(node.get("reverse", 0))

    def add_up(x: Tensor, along: Tensor) -> Tensor:
        axis = int(along.item())
        ordered = x.flip(axis) if reverse else x
        sums = ordered.cumsum(axis, dtype=x.dtype)
        sums = sums - ordered if exclusive else sums
        return sums.flip(axis) if reverse else sums

    return add_up


OPERATORS: dict[str, Maker] = {
    "ArgMax": _position(torch.argmax),
    "ArgMin": _position(torch.argmin),
    "CumSum": _cumulative_sum,
    "ReduceL1": _over_axes(lambda x, axes, keep: _total(x.abs(), axes, keep)),
    "ReduceL2": _over_axes(_norm),
    "ReduceLogSum": _over_axes(lambda x, axes, keep: _total(x, axes, keep).log()),
    "ReduceLogSumExp": _over_axes(torch.logsumexp),
    "ReduceMax": _over_axes(torch.amax),
    "ReduceMean": _over_axes(torch.mean),
    "ReduceMin": _over_axes(torch.amin),
    "ReduceProd": _over_axes(_product),
    "ReduceSum": _over_axes(_total),
    "ReduceSumSquare": _over_axes(lambda x, axes, keep: _total(x.square(), axes, keep)),
}

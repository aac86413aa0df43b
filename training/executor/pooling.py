"""Pooling with windows, and over whole images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always, one_output
from graphopt.training.executor.windows import Windows, extents_of, for_torch

MAX_POOLS: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


def _max_pool(node: Node) -> Compute:
    one_output(node)
    windows, kernel, ceil = Windows.of(node), node.get("kernel_shape"), bool(node.get("ceil_mode", 0))

    def pool(x: Tensor) -> Tensor:
        strides, dilations = windows.steps(len(kernel))
        padding = _completed(windows, extents_of(x), kernel, ceil)
        lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        padded = functional.pad(x, for_torch(padding), value=lowest)
        return MAX_POOLS[len(kernel)](padded, kernel, strides, 0, dilations)

    return pool


def _average_pool(node: Node) -> Compute:
    """Sums over windows, divided by the number of elements that count."""
    windows, kernel, ceil = Windows.of(node), node.get("kernel_shape"), bool(node.get("ceil_mode", 0))
    counts_padding = bool(node.get("count_include_pad", 0))

    def pool(x: Tensor) -> Tensor:
        extents = extents_of(x)
        image = x.reshape(-1, 1, *extents)
        padding = windows.padding(extents, kernel)
        completed = _completed(windows, extents, kernel, ceil)
        more = [(p - a, q - b) for (a, b), (p, q) in zip(padding, completed, strict=True)]
        counted = functional.pad(torch.ones_like(image[:1]), for_torch(padding), value=float(counts_padding))
        counts = _sums(functional.pad(counted, for_torch(more)), kernel, windows)
        sums = _sums(functional.pad(image, for_torch(completed)), kernel, windows)
        return (sums / counts).reshape(*x.shape[:2], *sums.shape[2:])

    return pool


def _sums(image: Tensor, kernel: Sequence[int], windows: Windows) -> Tensor:
    """Over each window of an image of one channel."""
    none = [0] * len(kernel)
    strides, dilations = windows.steps(len(kernel))
    ones = image.new_ones(1, 1, *kernel)
    return torch.convolution(image, ones, None, strides, none, dilations, False, none, 1)


def _completed(
    windows: Windows, extents: Sequence[int], kernel: Sequence[int], ceil: bool
) -> list[tuple[int, int]]:
    """Padding; with `ceil` also what the last window of each axis lacks, if it starts within the image or before."""
    padding = windows.padding(extents, kernel)
    if not ceil:
        return padding
    strides, dilations = windows.steps(len(kernel))
    found = []
    for (before, behind), n, k, s, d in zip(padding, extents, kernel, strides, dilations, strict=True):
        span = (k - 1) * d + 1
        last = math.ceil((n + before + behind - span) / s)
        last -= last * s >= n + before
        found.append((before, max(last * s + span - n - before, behind)))
    return found


def _global(reduce: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Maker:
    return always(lambda x: reduce(x, tuple(range(2, x.ndim))))


OPERATORS: dict[str, Maker] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalMaxPool": _global(lambda x, axes: x.amax(axes, keepdim=True)),
    "MaxPool": _max_pool,
}

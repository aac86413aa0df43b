"""Convolutions of any rank, grouped, dilated, transposed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor
from graphopt.training.executor.windows import Windows, extents_of, for_torch, shared


def _convolution(node: Node) -> Compute:
    windows, groups = Windows.of(node), node.get("group", 1)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        strides, dilations = windows.steps(weight.ndim - 2)
        padding = windows.padding(extents_of(x), extents_of(weight))
        symmetric = [before for before, _ in padding]
        if any(before != behind for before, behind in padding):
            x, symmetric = functional.pad(x, for_torch(padding)), [0] * len(padding)
        return torch.convolution(
            x, weight, bias, strides, symmetric, dilations, False, [0] * len(padding), groups
        )

    return convolve


def _transposed(node: Node) -> Compute:
    """The whole result of the scatter, cut to the size that is wanted, or continued with zeros."""
    windows, groups = Windows.of(node), node.get("group", 1)
    size, more = node.get("output_shape"), node.get("output_padding")

    def scatter(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = weight.ndim - 2
        none = [0] * rank
        strides, dilations = windows.steps(rank)
        full = torch.convolution(x, weight, None, strides, none, dilations, True, none, groups)
        behind = list(more or none)
        grown = [extent + extra for extent, extra in zip(extents_of(full), behind, strict=True)]
        if size is not None:
            cuts = _cuts_to(list(size[-rank:]), grown, windows.auto_pad)
        elif windows.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = [n * s for n, s in zip(extents_of(x), strides, strict=True)]
            cuts = _cuts_to(wanted, grown, windows.auto_pad)
        else:
            cuts = windows.padding(extents_of(x), extents_of(weight))
        moved = [(-first, extra - last) for (first, last), extra in zip(cuts, behind, strict=True)]
        result = functional.pad(full, for_torch(moved))
        return result if bias is None else result + bias.reshape(-1, *[1] * rank)

    return scatter


def _cuts_to(wanted: Sequence[int], found: Sequence[int], auto_pad: str) -> list[tuple[int, int]]:
    """What to cut off each axis. The odd one goes to the front unless SAME_UPPER asks otherwise."""
    side = "SAME_UPPER" if auto_pad == "SAME_UPPER" else "SAME_LOWER"
    return [shared(max(have - want, 0), side) for want, have in zip(wanted, found, strict=True)]


OPERATORS: dict[str, Maker] = {"Conv": _convolution, "ConvTranspose": _transposed}

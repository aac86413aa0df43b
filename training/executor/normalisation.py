"""Normalisations over batches, channels, groups and features."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, one_output, require

FLOAT_MOMENTUM = 0.9
"""Share that running statistics keep at each step, unless a node says otherwise."""

SCALES_OF_CHANNELS = 21
"""Opset from which GroupNormalization has a scale for each channel instead of each group."""


def _batch_normalization(node: Node) -> Compute:
    epsilon = _epsilon(node)
    _require_inference(node)

    def normalise(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)

    return normalise


def _with_batch_statistics(node: Node) -> Compute:
    """Normalises by the statistics of the batch, and moves the running ones towards them, in place."""
    epsilon, kept = _epsilon(node), node.get("momentum", FLOAT_MOMENTUM)
    _require_inference(node)

    def normalise(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(
            x, mean, variance, scale, bias, training=True, momentum=1 - kept, eps=epsilon
        )

    return normalise


def _require_inference(node: Node) -> None:
    require(not node.get("training_mode", 0), "its attribute training_mode is 1")
    one_output(node)


def _layer_normalization(node: Node) -> Compute:
    axis, epsilon = node.get("axis", -1), _epsilon(node)
    one_output(node)

    def normalise(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        axes = tuple(range(axis % x.ndim, x.ndim))
        scaled = _standardised(x, axes, epsilon) * scale
        return scaled if bias is None else scaled + bias

    return normalise


def _rms_normalization(node: Node) -> Compute:
    axis, epsilon = node.get("axis", -1), _epsilon(node)

    def normalise(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.ndim, x.ndim))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale

    return normalise


def _instance_normalization(node: Node) -> Compute:
    epsilon = _epsilon(node)

    def normalise(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        channels = (-1, *[1] * (x.ndim - 2))
        found = _standardised(x, tuple(range(2, x.ndim)), epsilon)
        return found * scale.reshape(channels) + bias.reshape(channels)

    return normalise


def _group_normalization(node: Node) -> Compute:
    groups, epsilon = node.get("num_groups"), _epsilon(node)
    by_channel = node.version >= SCALES_OF_CHANNELS

    def normalise(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if not by_channel:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return normalise


def _mean_variance_normalization(node: Node) -> Compute:
    axes, epsilon = tuple(node.get("axes", (0, 2, 3))), 1e-9

    def normalise(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + epsilon)

    return normalise


def _lp_normalization(node: Node) -> Compute:
    axis, order = node.get("axis", -1), node.get("p", 2)

    def normalise(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return x / torch.where(norm == 0, 1, norm)

    return normalise


def _local_response(node: Node) -> Compute:
    """Over `size` neighbouring channels; an even number has one more behind than before."""
    size, alpha, beta, bias = (
        node.get("size"),
        node.get("alpha", 1e-4),
        node.get("beta", 0.75),
        node.get("bias", 1.0),
    )
    before = (size - 1) // 2

    def normalise(x: Tensor) -> Tensor:
        squares = x.square().reshape(x.shape[0], 1, x.shape[1], math.prod(x.shape[2:]))
        padded = functional.pad(squares, (0, 0, before, size - 1 - before))
        sums = functional.avg_pool2d(padded, (size, 1), stride=1).reshape(x.shape)
        return x / torch.pow(bias + alpha * sums, beta)

    return normalise


def _standardised(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)


def _epsilon(node: Node) -> float:
    return float(node.get("epsilon", 1e-5))


OPERATORS: dict[str, Maker] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LRN": _local_response,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "RMSNormalization": _rms_normalization,
}

WITH_BATCH_STATISTICS: dict[str, Maker] = {"BatchNormalization": _with_batch_statistics}
"""What takes their place in training, where that is asked for."""

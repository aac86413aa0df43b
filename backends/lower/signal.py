"""STFT as a product with a constant matrix, and the window functions and MelWeightMatrix as constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.layout import Strided
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.matmul import Product, multiply
from graphopt.backends.lower.operator import (
    Anchor,
    Lowered,
    Operator,
    Refused,
    attribute,
    constant_input,
    dtype_of_value,
    shape_of,
)
from graphopt.backends.lower.views import first_input
from graphopt.backends.tensor import Tensor, strided_view

LARGEST_MATRIX = 1 << 26
"""Bytes of a transform's matrix beyond which it is refused."""

Array = np.ndarray[Any, Any]


def transform_matrix(length: int, bins: int, components: int, dtype: str) -> Array:
    """`[length * components, bins * 2]`: what an input element, real (1) or complex (2), adds to every output bin."""
    if length * components * bins * 2 * np.dtype(dtype).itemsize > LARGEST_MATRIX:
        raise Refused(f"a transform of length {length} needs a matrix larger than {LARGEST_MATRIX >> 20} MiB")
    angle = -2 * np.pi * (np.outer(np.arange(length), np.arange(bins)) % length / length)
    real, imaginary = np.cos(angle), np.sin(angle)
    columns = [np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)][:components]
    return np.stack(columns, 1).reshape(length * components, bins * 2).astype(dtype)


def lower_stft(ctx: Lowering, node: ir.Node) -> None:
    """STFT: overlapping frames of the signal, a view of it, times the windowed transform."""
    signal = first_input(ctx, node)
    step = int(np.reshape(constant_input(ctx, node, 1, "frame step"), ()))
    window = constant_input(ctx, node, 2, "window")
    given = constant_input(ctx, node, 3, "frame length")
    length = len(window) if given is None else int(np.reshape(given, ()))
    components = signal.shape[2] if signal.rank == 3 else 1
    bins = length // 2 + 1 if attribute(node, "onesided", 1) else length
    _check_bins(node, bins, 2)
    signal = ctx.dense(signal)
    layout = storage_of(signal).layout
    assert isinstance(layout, Strided)
    frames = (signal.shape[1] - length) // step + 1
    shape = (signal.shape[0], frames, length * components)
    strides = (signal.shape[1] * components, step * components, 1)
    matrix = transform_matrix(length, bins, components, signal.dtype)
    if window is not None:
        matrix = matrix * np.repeat(window, components)[:, None].astype(signal.dtype)

    def restore(index: Sequence[Expr]) -> Sequence[Expr]:
        n, frame, column = index
        return [n, frame, column // 2, column % 2]

    left = strided_view(signal, shape, strides, layout.offset)
    multiply(ctx, node, Product(left, ctx.constant(matrix), restore), _unchanged)


def _check_bins(node: ir.Node, bins: int, axis: int) -> None:
    """Refuse where shape inference found another number of bins (ONNX's own is wrong for some STFT)."""
    stated = shape_of(node.outputs[0])[axis]
    if stated != bins:
        raise Refused(
            f"its output is declared with {stated} bins instead of {bins}; state `onesided` explicitly"
        )


def _unchanged(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> Expr:
    return value


WINDOWS: dict[str, tuple[float, float, float]] = {
    "BlackmanWindow": (0.42, -0.5, 0.08),
    "HammingWindow": (25 / 46, -21 / 46, 0.0),
    "HannWindow": (0.5, -0.5, 0.0),
}
"""Coefficients of the cosines of 0, 1 and 2 turns over the window."""


def _window(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    size = int(np.reshape(constant_input(ctx, node, 0, "size"), ()))
    span = size if attribute(node, "periodic", 1) else size - 1
    angle = 2 * np.pi * np.arange(size) / max(span, 1)
    terms = WINDOWS[node.op_type]
    values = sum(c * np.cos(i * angle) for i, c in enumerate(terms))
    return [ctx.constant(np.asarray(values).astype(dtype_of_value(node.outputs[0])))]


def _mel_weight_matrix(ctx: Lowering, node: ir.Node) -> Sequence[Tensor]:
    names = ("number of mel bins", "DFT length", "sample rate", "lower edge", "upper edge")
    bins, length, rate, low, high = (
        np.reshape(constant_input(ctx, node, i, name), ()).item() for i, name in enumerate(names)
    )
    return [ctx.constant(mel_weights(bins, length, rate, low, high).astype(dtype_of_value(node.outputs[0])))]


def mel_weights(bins: int, length: int, rate: int, low: float, high: float) -> Array:
    """`[length // 2 + 1, bins]`: triangles over the spectrum, equally spaced on the mel scale."""
    low_mel, high_mel = (2595 * np.log10(1 + edge / 700) for edge in (low, high))
    mels = np.arange(bins + 2) * ((high_mel - low_mel) / (bins + 2)) + low_mel
    hertz = 700 * (np.power(10, mels / 2595) - 1)
    edges = ((length + 1) * hertz // rate).astype(int)
    weights = np.zeros((length // 2 + 1, bins))
    for i in range(bins):
        lower, centre, upper = edges[i : i + 3]
        if centre == lower:
            weights[centre, i] = 1
        else:
            weights[lower : centre + 1, i] = (np.arange(lower, centre + 1) - lower) / (centre - lower)
        if upper > centre:
            weights[centre:upper, i] = (upper - np.arange(centre, upper)) / (upper - centre)
    return weights


OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(WINDOWS, Lowered(_window)),
    "MelWeightMatrix": Lowered(_mel_weight_matrix),
    "STFT": Anchor(lower_stft),
}

"""Operators of ONNX Runtime's own domain that standard operators express: elementwise, normalisations, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.operator import Operator, Refused, constant_input

Values = Sequence[ir.Value | None]

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Activations that fused operators name, and what their `activation_params` are."""


def add_present(build: Composite, value: ir.Value, *others: ir.Value | None) -> ir.Value:
    """The sum of `value` and those of `others` that are there."""
    for other in others:
        value = value if other is None else build("Add", value, other)
    return value


def _gelu(build: Composite) -> Values:
    x = add_present(build, build.required(0), build.input(1))
    return [build("Gelu", x)]


def _fast_gelu(build: Composite) -> Values:
    x = add_present(build, build.required(0), build.input(1))
    return [build("Gelu", x, approximate="tanh")]


def _quick_gelu(build: Composite) -> Values:
    x = build.required(0)
    alpha = np.array(build.attribute("alpha", 1.702), build.dtype(x))
    return [build("Mul", x, build("Sigmoid", build("Mul", x, alpha)))]


def _skip_layer_normalization(build: Composite) -> Values:
    """Inputs: x, skip, scale, bias of the norm, bias of the sum; the outputs end with the sum."""
    total = add_present(build, build.required(0), build.required(1), build.input(4))
    result = _layer_norm(build, total, build.required(2), build.input(3), 1e-12)
    return _only_read(build, [result, None, None, total])


def _skip_simplified_layer_normalization(build: Composite) -> Values:
    """Inputs: x, skip, scale, bias of the sum; the outputs end with the sum."""
    total = add_present(build, build.required(0), build.required(1), build.input(3))
    epsilon = build.attribute("epsilon", 1e-5)
    result = build("RMSNormalization", total, build.required(2), domain="graphopt", axis=-1, epsilon=epsilon)
    return _only_read(build, [result, None, None, total])


def _simplified_layer_normalization(build: Composite) -> Values:
    axis, epsilon = build.attribute("axis", -1), build.attribute("epsilon", 1e-5)
    operands = (build.required(0), build.required(1))
    result = build("RMSNormalization", *operands, domain="graphopt", axis=axis, epsilon=epsilon)
    return _only_read(build, [result, None])


def _embed_layer_normalization(build: Composite) -> Values:
    """Sums of word, position and segment embeddings, normalised. Outputs: result, length of each sample, sum."""
    ids, segments, mask, positions = (build.input(i) for i in (0, 1, 7, 8))
    assert ids is not None
    batch, steps = build.shape(ids)
    total = build("Gather", build.required(2), ids, axis=0)
    if positions is None:
        positions = build.constant(np.arange(steps, dtype=np.int64))
    total = build("Add", total, build("Gather", build.required(3), positions, axis=0))
    if segments is not None:
        total = build("Add", total, build("Gather", build.required(4), segments, axis=0))
    result = _layer_norm(build, total, build.required(5), build.input(6), 1e-12)
    lengths = build.constant(np.zeros(batch, np.int32))
    if mask is not None:
        lengths = build("ReduceSum", mask, np.array([1], np.int64), keepdims=0)
    return _only_read(build, [result, lengths, total])


def _layer_norm(
    build: Composite, x: ir.Value, scale: ir.Value, bias: ir.Value | None, epsilon: float
) -> ir.Value:
    return build("LayerNormalization", x, scale, bias, axis=-1, epsilon=build.attribute("epsilon", epsilon))


def _only_read(build: Composite, values: Values) -> Values:
    """The values of the outputs that are read; refused where one of them has no value."""
    outputs = build.node.outputs
    read = [output.is_graph_output() or bool(output.uses()) for output in outputs]
    for position, (value, is_read) in enumerate(zip(values, read, strict=False)):
        if is_read and value is None:
            raise Refused(f"its output {position} serves training and is not computed")
    return [value if is_read else None for value, is_read in zip(values, read, strict=False)]


def _fused_matmul(build: Composite) -> Values:
    left, right = (
        _matrix_operand(build, position, bool(build.attribute(f"trans{name}", 0)), f"transBatch{name}")
        for position, name in ((0, "A"), (1, "B"))
    )
    product, alpha = build("MatMul", left, right), build.attribute("alpha", 1.0)
    return [product if alpha == 1 else build("Mul", product, np.array(alpha, build.dtype(build.inputs[0])))]  # type: ignore[arg-type]


def _matrix_operand(build: Composite, position: int, transposed: bool, batch_transposed: str) -> ir.Value:
    value = build.required(position)
    order = list(range(len(build.shape(value))))
    if build.attribute(batch_transposed, 0):
        order = [*order[1:-1], order[0], order[-1]]
    if transposed and len(order) > 1:
        order[-2:] = order[:-3:-1]
    return value if order == sorted(order) else build.transpose(value, *order)


def _activated(
    build: Composite, value: ir.Value, dtype: str, name: str | None, numbers: Sequence[float]
) -> ir.Value:
    if not name:
        return value
    if name not in ACTIVATIONS:
        raise Refused(f"its activation {name!r} is not supported")
    if name == "Clip":
        return build("Clip", value, *(np.array(number, dtype) for number in numbers))
    attributes: dict[str, Any] = dict(zip(ACTIVATIONS[name], numbers, strict=False))
    return build(name, value, **attributes)


def _fused_conv(build: Composite) -> Values:
    """Conv, plus an optional fourth input, then an activation."""
    own = ("activation", "activation_params")
    x = build.required(0)
    result = build("Conv", *build.inputs[:3], **_attributes(build, own))
    result = add_present(build, result, build.input(3))
    name, numbers = build.attribute("activation"), build.attribute("activation_params", [])
    return [_activated(build, result, build.dtype(x), name, numbers)]


def _nhwc_conv(build: Composite) -> Values:
    """Conv over channels-last data; the weights are laid out as those of Conv."""
    x = build.required(0)
    rank = len(build.shape(x))
    first = build.transpose(x, 0, rank - 1, *range(1, rank - 1))
    result = build("Conv", first, *build.inputs[1:3], **_attributes(build, ()))
    return [build.transpose(result, 0, *range(2, rank), 1)]


def _fused_gemm(build: Composite) -> Values:
    numbers = [build.attribute(name) for name in ("activation_alpha", "activation_beta", "activation_gamma")]
    own = ("activation", "activation_alpha", "activation_beta", "activation_gamma")
    result = build("Gemm", *build.inputs, **_attributes(build, own))
    dtype = build.dtype(build.required(0))
    present = [number for number in numbers if number is not None]
    return [_activated(build, result, dtype, build.attribute("activation"), present)]


def _attributes(build: Composite, without: Sequence[str]) -> dict[str, Any]:
    return {name: build.attribute(name) for name in build.node.attributes if name not in without}


def _matmul_bits(build: Composite) -> Values:
    """MatMulNBits: a product with what integers of few bits stand for, in blocks."""
    if build.input(4) is not None:
        raise Refused("groups of channels (g_idx) are not supported")
    x = build.required(0)
    packed, scales, zeros = (
        constant_input(build.ctx, build.node, i, what)
        for i, what in ((1, "weight"), (2, "scales"), (3, "zero points"))
    )
    depth, columns, block = (build.attribute(name) for name in ("K", "N", "block_size"))
    bits = build.attribute("bits", 4)
    blocks = -(-depth // block)
    levels = _unpack(packed.reshape(columns, -1), bits)[:, :depth].T
    middle: np.ndarray = np.full((blocks, columns), 1 << (bits - 1), np.uint8)
    if zeros is not None and zeros.dtype == np.uint8:
        middle = _unpack(zeros.reshape(columns, -1), bits)[:, :blocks].T
    elif zeros is not None:
        middle = zeros.reshape(columns, blocks).T
    factors = scales.reshape(columns, blocks).T.astype(build.dtype(x))
    weights = _decoded(build, levels, factors, middle, block)
    return [add_present(build, build("MatMul", x, weights), build.input(5))]


def _decoded(
    build: Composite, levels: np.ndarray, scales: np.ndarray, zeros: np.ndarray, block: int
) -> ir.Value | np.ndarray:
    """What levels `[k, n]` stand for, in blocks of rows; as numbers where zero points are none of the levels."""
    if zeros.dtype == np.uint8:
        operands = (np.ascontiguousarray(each) for each in (levels, scales, zeros))
        return build("DequantizeLinear", *operands, axis=0, block_size=block)
    zero, scale = (
        np.repeat(each.astype(np.float32), block, axis=0)[: len(levels)] for each in (zeros, scales)
    )
    return np.ascontiguousarray((levels - zero) * scale).astype(scales.dtype)


def _unpack(rows: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned integers of `bits` bits, the lowest first in each byte, along the last axis."""
    if bits not in (2, 4, 8):
        raise Refused(f"weights of {bits} bits are not supported")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((rows[..., None] >> shifts) & ((1 << bits) - 1)).reshape(*rows.shape[:-1], -1)


OPERATORS: dict[str, Operator] = {
    "Gelu": composite(_gelu),
    "BiasGelu": composite(_gelu),
    "FastGelu": composite(_fast_gelu),
    "QuickGelu": composite(_quick_gelu),
    "SkipLayerNormalization": composite(_skip_layer_normalization),
    "SkipSimplifiedLayerNormalization": composite(_skip_simplified_layer_normalization),
    "EmbedLayerNormalization": composite(_embed_layer_normalization),
    "FusedMatMul": composite(_fused_matmul),
    "TransposeMatMul": composite(_fused_matmul),
    "FusedConv": composite(_fused_conv),
    "NhwcConv": composite(_nhwc_conv),
    "FusedGemm": composite(_fused_gemm),
    "MatMulNBits": composite(_matmul_bits),
}
"""Domain com.microsoft."""

STANDARD_DOMAIN: dict[str, Operator] = {
    "SimplifiedLayerNormalization": composite(_simplified_layer_normalization)
}
"""What ONNX Runtime adds to the standard domain."""

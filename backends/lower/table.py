"""The table of operators: how each ONNX operator is lowered, by domain and name."""

from __future__ import annotations

from graphopt.backends.lower import (
    activations,
    arithmetic,
    attention,
    bits,
    casts,
    contrib,
    contrib_attention,
    control,
    convolution,
    deformable,
    determinant,
    einsum,
    fourier,
    indexing,
    integer,
    logic,
    losses,
    matmul,
    normalisations,
    pooling,
    quantize,
    quantized,
    rearrange,
    recurrent,
    reductions,
    refusals,
    regions,
    resize,
    row_normalisations,
    sampling,
    scans,
    selection,
    signal,
    softmax,
    transposed_convolution,
    views,
)
from graphopt.backends.lower.operator import Operator

ONNX_OPERATORS: dict[str, Operator] = {
    **refusals.OPERATORS,
    **arithmetic.OPERATORS,
    **bits.OPERATORS,
    **casts.OPERATORS,
    **logic.OPERATORS,
    **losses.OPERATORS,
    **normalisations.OPERATORS,
    **activations.OPERATORS,
    **contrib.STANDARD_DOMAIN,
    **control.OPERATORS,
    **attention.OPERATORS,
    **convolution.OPERATORS,
    **deformable.OPERATORS,
    **determinant.OPERATORS,
    **einsum.OPERATORS,
    **fourier.OPERATORS,
    **matmul.OPERATORS,
    **pooling.OPERATORS,
    **recurrent.OPERATORS,
    **reductions.OPERATORS,
    **row_normalisations.OPERATORS,
    **scans.OPERATORS,
    **selection.OPERATORS,
    **softmax.OPERATORS,
    **transposed_convolution.OPERATORS,
    **views.OPERATORS,
    **quantize.OPERATORS,
    **integer.OPERATORS,
    **indexing.OPERATORS,
    **rearrange.OPERATORS,
    **resize.OPERATORS,
    **sampling.OPERATORS,
    **regions.OPERATORS,
    **signal.OPERATORS,
}
"""Operators of the standard domain, at every opset."""

MICROSOFT_OPERATORS: dict[str, Operator] = {
    **contrib.OPERATORS,
    **contrib_attention.OPERATORS,
    **quantize.MICROSOFT_OPERATORS,
    **integer.MICROSOFT_OPERATORS,
    **quantized.MICROSOFT_OPERATORS,
}
"""Operators of ONNX Runtime's own domain."""

OPERATORS: dict[str, dict[str, Operator]] = {
    "": ONNX_OPERATORS,
    "ai.onnx": ONNX_OPERATORS,
    "com.microsoft": MICROSOFT_OPERATORS,
    "graphopt": ONNX_OPERATORS,
}
"""By domain. `graphopt` holds standard operators of a newer opset than the model's."""

"""The table of operators: how each ONNX operator is lowered, by domain and name."""

from __future__ import annotations

from graphopt.backends.lower import (
    activations,
    arithmetic,
    control,
    convolution,
    integer,
    matmul,
    pooling,
    quantize,
    quantized,
    recurrent,
    reductions,
    transposed_convolution,
    views,
)
from graphopt.backends.lower.operator import Operator

ONNX_OPERATORS: dict[str, Operator] = {
    **arithmetic.OPERATORS,
    **activations.OPERATORS,
    **control.OPERATORS,
    **convolution.OPERATORS,
    **matmul.OPERATORS,
    **pooling.OPERATORS,
    **recurrent.OPERATORS,
    **reductions.OPERATORS,
    **transposed_convolution.OPERATORS,
    **views.OPERATORS,
    **quantize.OPERATORS,
    **integer.OPERATORS,
}
"""Operators of the standard domain, at every opset."""

MICROSOFT_OPERATORS: dict[str, Operator] = {
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


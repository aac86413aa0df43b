"""The table of operators: how each ONNX operator is lowered, by domain and name."""

from __future__ import annotations

from graphopt.backends.lower import activations, arithmetic, linear, pooling, reductions, views
from graphopt.backends.lower.operator import Operator

ONNX_OPERATORS: dict[str, Operator] = {
    **arithmetic.OPERATORS,
    **activations.OPERATORS,
    **linear.OPERATORS,
    **pooling.OPERATORS,
    **reductions.OPERATORS,
    **views.OPERATORS,
}
"""Operators of the standard domain, at every opset."""

OPERATORS: dict[str, dict[str, Operator]] = {"": ONNX_OPERATORS, "ai.onnx": ONNX_OPERATORS, "graphopt": ONNX_OPERATORS}
"""By domain. `graphopt` holds standard operators of a newer opset than the model's."""


"""Elementwise operators on the bits of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, dtype_of
from graphopt.backends.lower.elements import binary, number, unary, zero
from graphopt.backends.lower.operator import Operator, Pointwise, attribute


def _shift(k: KernelBuilder, node: ir.Node, arguments: Sequence[Any]) -> Expr:
    """Shifting by the width or more, or by a negative amount, leaves 0, or the sign when it goes right."""
    x, amount = arguments[0], k.bind(arguments[1])
    last = np.dtype(dtype_of(x)).itemsize * 8 - 1
    fits = tirx.And(amount >= zero(amount), amount <= number(last, amount))
    bounded = tirx.Select(fits, amount, number(last, amount))
    if attribute(node, "direction") == "LEFT":
        return tirx.Select(fits, tirx.op.shift_left(x, bounded), zero(x))
    shifted = tirx.op.shift_right(x, bounded)
    return tirx.Select(fits, shifted, zero(x)) if dtype_of(x).startswith("uint") else shifted


OPERATORS: dict[str, Operator] = {
    "BitShift": Pointwise(_shift, 2),
    "BitwiseAnd": binary(tirx.op.bitwise_and),
    "BitwiseNot": unary(tirx.op.bitwise_not),
    "BitwiseOr": binary(tirx.op.bitwise_or),
    "BitwiseXor": binary(tirx.op.bitwise_xor),
}

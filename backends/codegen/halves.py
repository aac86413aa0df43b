"""bfloat16 as the upper half of a float32: values are handled as their bits, which every pass of TIR understands."""

from __future__ import annotations

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const

SHIFT = 16
"""Bits of a float32 that bfloat16 drops."""

ALMOST_HALF = (1 << SHIFT - 1) - 1
"""Added before they are dropped, it rounds up what is more than half; the last bit that stays, also added, what is half and odd."""

MAGNITUDE, INFINITY = 0x7FFFFFFF, 0x7F800000
"""The bits of a float32 but for its sign, and those of infinity, above which are NaNs."""

QUIET = 1 << 6
"""The bit that keeps what is left of a NaN one."""


def bfloat16_bits(k: KernelBuilder, x: Expr) -> Expr:
    """float32 `x` rounded to nearest, half to even, as uint16 bits."""
    bits = k.bind(tirx.op.reinterpret("uint32", x))
    kept = k.bind(tirx.op.shift_right(bits, const(SHIFT, "uint32")))
    odd = tirx.op.bitwise_and(kept, const(1, "uint32"))
    rounded = tirx.op.shift_right(bits + const(ALMOST_HALF, "uint32") + odd, const(SHIFT, "uint32"))
    is_nan = tirx.op.bitwise_and(bits, const(MAGNITUDE, "uint32")) > const(INFINITY, "uint32")
    return cast(tirx.Select(is_nan, tirx.op.bitwise_or(kept, const(QUIET, "uint32")), rounded), "uint16")


def from_bfloat16(bits: Expr) -> Expr:
    """uint16 bits as the float32 that they stand for."""
    return tirx.op.reinterpret("float32", tirx.op.shift_left(cast(bits, "uint32"), const(SHIFT, "uint32")))

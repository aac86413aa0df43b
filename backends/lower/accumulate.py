"""The type in which kernels that sum products keep their sums."""

from __future__ import annotations

from graphopt.backends.lower.operator import BITS, Refused

WIDER = {"float16": "float32", BITS: "float32"}
"""Types whose sums are kept in a wider one."""

REFUSED = ("bfloat16", "bool")


def accumulator_of(dtype: str) -> str:
    """The type of sums of elements of `dtype`. Raises Refused for a type without arithmetic."""
    if dtype in REFUSED:
        raise Refused(f"arithmetic on {dtype} is not supported")
    return WIDER.get(dtype, dtype)

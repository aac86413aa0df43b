"""What tensor cores multiply: elements of one, two or four bytes. Rows, chunks and instructions are equally many bytes of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphopt.backends.codegen.builder import Expr, cast, dtype_of
from graphopt.backends.codegen.halves import from_bfloat16
from graphopt.backends.lower.operator import BITS

if TYPE_CHECKING:
    from graphopt.backends.lower.context import Lowering

ROW = 128
"""Bytes of the depth that a team multiplies between two barriers."""

CHUNK = 16
"""Bytes that are copied at a time."""

CHUNKS = ROW // CHUNK

DEPTH = 32
"""Bytes of the depth of one instruction."""


@dataclass(frozen=True)
class Sums:
    """`dtype` of sums, what PTX and C call it, and the letter of registers with it."""

    dtype: str
    name: str
    c_type: str
    register: str


FLOAT_SUMS = Sums("float32", "f32", "float", "f")
INTEGER_SUMS = Sums("int32", "s32", "int", "r")


@dataclass(frozen=True)
class Element:
    """`dtype` is that in memory, `name` what PTX calls it, `size` its bytes. Bytes of the right operand have a sign of their own."""

    dtype: str
    name: str
    size: int
    right_name: str = ""
    sums: Sums = FLOAT_SUMS

    @property
    def operands(self) -> str:
        """What PTX calls both."""
        return f"{self.name}.{self.right_name or self.name}"

    @property
    def chunk(self) -> int:
        """Elements that are copied at a time."""
        return CHUNK // self.size

    @property
    def step(self) -> int:
        """Those of the depth that a team multiplies between two barriers."""
        return ROW // self.size

    @property
    def depth(self) -> int:
        """Those of the depth of one instruction."""
        return DEPTH // self.size


FLOAT16 = Element("float16", "f16", 2)
BFLOAT16 = Element(BITS, "bf16", 2)
TF32 = Element("float32", "tf32", 4)
BYTES = {
    dtype: Element(dtype, name, 1, "s8", INTEGER_SUMS) for dtype, name in (("int8", "s8"), ("uint8", "u8"))
}
"""By the dtype of the left operand; the right one is int8."""

HALVES = {element.dtype: element for element in (FLOAT16, BFLOAT16)}
"""By the dtype in memory, which says of no other product that its operands are halves."""


def element_of(ctx: Lowering, *dtypes: str) -> Element | None:
    """What tensor cores multiply where operands of the node at hand have such dtypes; None if they do not. float32 is multiplied as
    it is unless operands were rounded."""
    if len(set(dtypes)) != 1:
        return None
    if dtypes[0] == TF32.dtype:
        return TF32 if ctx.rounded else None
    return HALVES.get(dtypes[0])


def widened(value: Expr, dtype: str) -> Expr:
    """An element in memory as one of a wider type."""
    return cast(from_bfloat16(value) if dtype_of(value) == BITS else value, dtype)

"""What the table of operators holds, and how lowering functions read the attributes of a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.tensor import Tensor

if TYPE_CHECKING:
    from graphopt.backends.lower.context import Lowering


_INTEGERS = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
ELEMENT_TYPES = frozenset({"BOOL", "FLOAT16", "FLOAT", "DOUBLE"} | _INTEGERS)
"""Those that a buffer can hold and kernels compute: no strings, no complex numbers, nothing narrower than a byte, no bfloat16."""

BITS = "uint16"
"""The dtype of tensors of bfloat16, whose elements are handled as their bits."""

CARRIERS = frozenset(
    (
        "Cast",
        "Concat",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operators on bfloat16: those that convert it, or only move it."""


class Refused(Exception):
    """A node cannot be lowered; the message says why."""


@dataclass(frozen=True)
class Pointwise:
    """Each output element depends on the input elements at the same (broadcast) position.

    `compute(k, node, arguments)` gives the element; arguments are scalar expressions, None for absent inputs.
    """

    compute: Callable[[KernelBuilder, ir.Node, Sequence[Any]], Expr]
    cost: int = 1


@dataclass(frozen=True)
class Lowered:
    """Any other operator: `lower(ctx, node)` returns the tensor of every output, None for unused ones."""

    lower: Callable[[Lowering, ir.Node], Sequence[Tensor | None]]


@dataclass(frozen=True)
class Anchor:
    """A kernel that takes following elementwise operators into its stores (see `pointwise.epilogue`).

    `lower(ctx, node)` gives the value that its epilogue ends in a tensor in memory.
    """

    lower: Callable[[Lowering, ir.Node], None]


Operator = Pointwise | Lowered | Anchor


@dataclass(frozen=True)
class Varying:
    """An operator that is lowered in another way from node to node."""

    choose: Callable[[ir.Node], Operator]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute as a Python value (int, float, str, list, numpy array), or `default`."""
    found = node.attributes.get(name)
    if found is None:
        return default
    value = found.value
    if isinstance(value, ir.TensorProtocol):
        return value.numpy()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value."""
    if value.shape is None or not all(isinstance(extent, int) for extent in value.shape):
        raise Refused(f"the shape of {value.name!r} is not fixed: {value.shape}")
    return tuple(int(extent) for extent in value.shape.numpy())


def is_bfloat16(value: ir.Value | None) -> bool:
    """Whether a value's elements are handled as bits."""
    return value is not None and value.dtype == ir.DataType.BFLOAT16


def refuse_bfloat16(values: Iterable[ir.Value | None]) -> None:
    """For those who compute on elements, or hand them to a caller."""
    for value in values:
        if value is not None and is_bfloat16(value):
            raise Refused(f"{value.name!r} has element type BFLOAT16")


def dtype_of_value(value: ir.Value) -> str:
    """The numpy name of a value's element type; that of bits for bfloat16."""
    if value.dtype is None:
        raise Refused(f"the element type of {value.name!r} is unknown")
    if is_bfloat16(value):
        return BITS
    if value.dtype.name not in ELEMENT_TYPES:
        raise Refused(f"{value.name!r} has element type {value.dtype.name}")
    return str(value.dtype.numpy().name)


def constant_input(ctx: Lowering, node: ir.Node, position: int, what: str) -> Any:
    """The compile-time array of an input, or None where it is absent; refused where it is computed at run time."""
    if position >= len(node.inputs) or node.inputs[position] is None:
        return None
    tensor = ctx.tensor(node.inputs[position])  # type: ignore[arg-type]
    if tensor.constant is None:
        raise Refused(f"its {what} is computed at run time")
    return tensor.constant

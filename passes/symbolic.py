"""Small integer tensors with symbolic entries: what Shape, Gather, Concat, arithmetic and the like yield on free dims.

A tensor is an object array of Python ints, bools, ``Symbol`` (a size that is not known yet, never negative) and
``UNKNOWN``. The data-moving operators are those of ``evaluate``; only arithmetic and comparison differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.evaluate import FUNCTIONS, Arrays


class Unknown:
    """An entry of which nothing is known; it absorbs all arithmetic."""

    def __repr__(self) -> str:
        return "?"


UNKNOWN: Final = Unknown()


@dataclass(frozen=True)
class Symbol:
    """A dimension that is free; equal names mean equal sizes."""

    name: str


@dataclass(frozen=True)
class Nameless(Symbol):
    """The size of an axis of a value that has no name in the model: it equals itself, and is not written anywhere."""


Entry = int | bool | Symbol | Unknown


def entries(value: ir.Value) -> list[Entry] | None:
    """The sizes of a value; None for an unknown rank."""
    if value.shape is None:
        return None
    return [_entry(dim, f"axis {axis} of {value.name}") for axis, dim in enumerate(value.shape)]


def shape_of(value: ir.Value, start: int, end: int | None) -> np.ndarray | None:
    """The value of Shape, from one axis to another; None for an unknown rank."""
    found = entries(value)
    return None if found is None else _array(found[start:end])


def from_constant(array: np.ndarray) -> np.ndarray:
    """An integer or boolean array as object array."""
    return array.astype(object)


def is_known(array: np.ndarray) -> bool:
    """Whether every entry is a number."""
    return all(isinstance(each, int | bool) for each in array.reshape(-1).tolist())


def to_dims(entries: Sequence[Entry]) -> list[int | str | None]:
    """Sizes as the dimensions of a shape."""
    return [_dim(each) for each in entries]


def _entry(dim: int | ir.SymbolicDim, otherwise: str) -> Entry:
    if isinstance(dim, int):
        return dim
    return Nameless(otherwise) if dim.value is None else Symbol(dim.value)


def _dim(entry: Entry) -> int | str | None:
    if isinstance(entry, Symbol):
        return None if isinstance(entry, Nameless) else entry.name
    return int(entry) if isinstance(entry, int) and entry >= 0 else None


def _array(entries: Sequence[Entry]) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def evaluate_symbolic(node: ir.Node, arrays: Arrays) -> tuple[np.ndarray, ...] | None:
    """Like ``evaluate``, for object arrays; None for operators that shapes are not computed with."""
    function = OPERATORS.get(node.op_type) if node.domain == "" else None
    if function is None:
        return None
    try:
        found = function(node, arrays)
    except (ValueError, IndexError, TypeError, ArithmeticError, KeyError):
        return None
    if found is None:
        return None
    return tuple(np.asarray(each, dtype=object) for each in (found if isinstance(found, tuple) else (found,)))


def _add(left: Entry, right: Entry) -> Entry:
    if _are_numbers(left, right):
        return left + right  # type: ignore[operator]
    return _named(left, "+", right, neutral=0)


def _subtract(left: Entry, right: Entry) -> Entry:
    if _are_numbers(left, right):
        return left - right  # type: ignore[operator]
    if isinstance(left, Symbol) and left == right:
        return 0
    return left if right == 0 else UNKNOWN


def _multiply(left: Entry, right: Entry) -> Entry:
    if _are_numbers(left, right):
        return left * right  # type: ignore[operator]
    if 0 in (left, right):
        return 0
    return _named(left, "*", right, neutral=1)


def _divide(left: Entry, right: Entry) -> Entry:
    if _are_numbers(left, right):
        if right == 0:
            return UNKNOWN
        quotient = abs(left) // abs(right)  # type: ignore[arg-type]
        return quotient if (left < 0) == (right < 0) else -quotient  # type: ignore[operator]
    return left if right == 1 else UNKNOWN


def _named(left: Entry, operator: str, right: Entry, neutral: int) -> Entry:
    """The result of a commutative operator on sizes, under a name made of the sorted operands."""
    if left == neutral:
        return right
    if right == neutral:
        return left
    if any(
        isinstance(each, Unknown | Nameless) or (isinstance(each, int) and each < 0) for each in (left, right)
    ):
        return UNKNOWN
    names = sorted(each.name if isinstance(each, Symbol) else str(each) for each in (left, right))
    return Symbol(f"({names[0]} {operator} {names[1]})")


def _equal(left: Entry, right: Entry) -> Entry:
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return UNKNOWN
    if left == right:
        return True
    if _are_numbers(left, right) or _negative(left) or _negative(right):
        return False
    return UNKNOWN


def _negative(entry: Entry) -> bool:
    return isinstance(entry, int) and entry < 0


def _choose(condition: Entry, left: Entry, right: Entry) -> Entry:
    if isinstance(condition, bool):
        return left if condition else right
    return left if left == right else UNKNOWN


def _compare(function: Callable[[int, int], Entry]) -> Callable[[Entry, Entry], Entry]:
    def run(left: Entry, right: Entry) -> Entry:
        return function(left, right) if _are_numbers(left, right) else UNKNOWN  # type: ignore[arg-type]

    return run


def _extreme(function: Callable[[int, int], int]) -> Callable[[Entry, Entry], Entry]:
    def run(left: Entry, right: Entry) -> Entry:
        if _are_numbers(left, right):
            return function(left, right)  # type: ignore[arg-type]
        return left if left == right else UNKNOWN

    return run


def _are_numbers(*entries: Entry) -> bool:
    return all(isinstance(each, int) for each in entries)


def _negate(entry: Entry) -> Entry:
    return -entry if isinstance(entry, int) else UNKNOWN


def _invert(entry: Entry) -> Entry:
    return not entry if isinstance(entry, bool) else UNKNOWN


def _pointwise(function: Callable[..., Entry], inputs: int) -> Callable[[ir.Node, Arrays], Any]:
    vectorized = np.frompyfunc(function, inputs, 1)

    def run(node: ir.Node, arrays: Arrays) -> Any:
        result = vectorized(*arrays[:inputs])
        for array in arrays[inputs:]:
            result = vectorized(result, array)
        return result

    return run


def _product(node: ir.Node, arrays: Arrays) -> Any:
    if arrays[0].ndim != 1:
        return None
    result: Entry = 1
    for entry in arrays[0].tolist():
        result = _multiply(result, entry)
    return _array([result]) if attribute(node, "keepdims") else np.asarray(result, dtype=object)


def _fill(node: ir.Node, arrays: Arrays) -> Any:
    """ConstantOfShape of a known small shape with an integer value."""
    if not is_known(arrays[0]):
        return None
    result = FUNCTIONS["ConstantOfShape"](node, arrays)
    return None if result.dtype.kind not in "iub" else result


def _range(node: ir.Node, arrays: Arrays) -> Any:
    return (
        FUNCTIONS["Range"](node, arrays)
        if all(is_known(array) for array in arrays if array is not None)
        else None
    )


_MOVING = (
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)

OPERATORS: dict[str, Callable[[ir.Node, Arrays], Any]] = {
    **{name: FUNCTIONS[name] for name in _MOVING},
    "Add": _pointwise(_add, 2),
    "ConstantOfShape": _fill,
    "Div": _pointwise(_divide, 2),
    "Equal": _pointwise(_equal, 2),
    "Greater": _pointwise(_compare(lambda left, right: left > right), 2),
    "Less": _pointwise(_compare(lambda left, right: left < right), 2),
    "Max": _pointwise(_extreme(max), 2),
    "Min": _pointwise(_extreme(min), 2),
    "Mod": _pointwise(_compare(lambda left, right: left % right if right else UNKNOWN), 2),
    "Mul": _pointwise(_multiply, 2),
    "Neg": _pointwise(_negate, 1),
    "Not": _pointwise(_invert, 1),
    "Range": _range,
    "ReduceProd": _product,
    "Sub": _pointwise(_subtract, 2),
    "Where": _pointwise(_choose, 3),
}

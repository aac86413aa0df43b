"""Random feeds that a model can digest: indices stay within their table, masks are 0/1, lengths fit."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.arrays import Array
from graphopt.errors import InputError

Dims = Mapping[str, int]
Choices = NDArray[np.int64]

DEFAULT_SIZE = 64
MASK_NAME = re.compile("mask", re.IGNORECASE)
LENGTH_NAME = re.compile(r"(^|_)len(gth)?s?(_|$)", re.IGNORECASE)
# Operators whose first input keeps its values.
PASS_THROUGH = frozenset(
    {"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)


def random_feeds(
    model: ir.Model, seed: int = 0, dims: Dims | None = None, size: int = DEFAULT_SIZE
) -> dict[str, Array]:
    """One random array per input that has no default value; the same arguments give the same arrays.

    Floats are standard normal. Integers stay within the table they index (Gather and its kin), within the
    sequence (recurrent lengths), or among the constants a scalar is compared with. Free dimensions take their
    size from ``dims``; the others become 1 on a first axis and ``size`` elsewhere. Raises InputError for an
    input without a shape or with a dtype that cannot be drawn (strings, sequences).
    """
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    sizes = _sizes(inputs, dims or {})
    shapes = {_name(value): _shape(value, sizes, size) for value in inputs}
    return {
        _name(value): _draw(value, shapes, sizes, np.random.default_rng([seed, index]))
        for index, value in enumerate(inputs)
    }


def _sizes(inputs: list[ir.Value], dims: Dims) -> Dims:
    """The size of every named free dimension that is given or stands on a first axis."""
    first = (value.shape[0] for value in inputs if value.shape)
    batch = {dim.value: 1 for dim in first if isinstance(dim, ir.SymbolicDim) and dim.value is not None}
    return {**batch, **dims}


def _shape(value: ir.Value, sizes: Dims, size: int) -> tuple[int, ...]:
    if value.shape is None:
        raise InputError(f"input {_name(value)!r} has no shape; give one with --input-shape")
    return tuple(_extent(dim, axis, sizes, size) for axis, dim in enumerate(value.shape))


def _extent(dim: int | ir.SymbolicDim, axis: int, sizes: Dims, size: int) -> int:
    if isinstance(dim, int):
        return dim
    fallback = 1 if axis == 0 else size
    return fallback if dim.value is None else sizes.get(dim.value, fallback)


def _draw(
    value: ir.Value, shapes: Mapping[str, tuple[int, ...]], sizes: Dims, rng: np.random.Generator
) -> Array:
    shape = shapes[_name(value)]
    dtype = _dtype(value)
    if MASK_NAME.search(_name(value)):
        return _mask(shape, rng).astype(dtype)
    if dtype == np.bool_:
        return _not_all_false(rng.integers(0, 2, shape).astype(np.bool_))
    if dtype.kind in "iu":
        return rng.choice(_choices(value, shapes, sizes), shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


def _mask(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Along the last axis a run of ones that covers at least half of it, then zeros."""
    if not shape:
        return np.ones(shape, np.bool_)
    length = shape[-1]
    visible = rng.integers((length + 1) // 2, length + 1, (*shape[:-1], 1))
    return np.arange(length) < visible


def _not_all_false(array: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if array.size:
        array.flat[0] = True
    return array


def _choices(value: ir.Value, shapes: Mapping[str, tuple[int, ...]], sizes: Dims) -> Choices:
    """The integers that an input may hold; never empty."""
    bounds = [bound for bound in _consumer_bounds(value, sizes) if bound.size]
    if bounds:
        return min(bounds, key=len)
    if LENGTH_NAME.search(_name(value)):
        others = (shape for name, shape in shapes.items() if name != value.name and len(shape) > 1)
        return np.arange(1, max((shape[1] for shape in others), default=1) + 1)
    compared = _compared_constants(value) if int(np.prod(shapes[_name(value)])) == 1 else None
    return _any_integer(_dtype(value)) if compared is None else compared


def _any_integer(dtype: np.dtype[Any]) -> Choices:
    """The whole range of one-byte integers, which are quantised data; small counts otherwise."""
    info = np.iinfo(dtype)
    return np.arange(info.min, info.max + 1) if dtype.itemsize == 1 else np.arange(10)


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Uses of a value, seen through operators that only move or convert it."""
    pending, seen = [value], set()
    while pending:
        for use in pending.pop().uses():
            yield use.node, use.idx
            if use.node.op_type in PASS_THROUGH and use.idx == 0 and id(use.node) not in seen:
                seen.add(id(use.node))
                pending.extend(use.node.outputs)


def _consumer_bounds(value: ir.Value, sizes: Dims) -> Iterator[Choices]:
    for node, index in _uses(value):
        bound = CONSUMERS.get((node.op_type, index))
        if bound is not None:
            yield bound(node, sizes)


def _table(node: ir.Node, sizes: Dims) -> Choices:
    """Positions along the axis that a Gather-like node indexes."""
    return np.arange(_dim(node.inputs[0], node.attributes.get_int("axis", 0), sizes))


def _depth(node: ir.Node, sizes: Dims) -> Choices:
    """Classes of a OneHot."""
    depth = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    return np.arange(0 if depth is None else int(depth.numpy().item()))


def _sequence(node: ir.Node, sizes: Dims) -> Choices:
    """Lengths that fit the sequence of a recurrent node."""
    return np.arange(1, _dim(node.inputs[0], 0, sizes) + 1)


# (operator, input index) -> the integers that are allowed there; empty where the model does not tell.
CONSUMERS: dict[tuple[str, int], Callable[[ir.Node, Dims], Choices]] = {
    ("Gather", 1): _table,
    ("GatherElements", 1): _table,
    ("GatherND", 1): _table,
    ("ScatterElements", 1): _table,
    ("ScatterND", 1): _table,
    ("OneHot", 0): _depth,
    ("LSTM", 4): _sequence,
    ("GRU", 4): _sequence,
    ("RNN", 4): _sequence,
}


def _dim(value: ir.Value | None, axis: int, sizes: Dims) -> int:
    """One dimension of a value, 0 where it is not known."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return 0
    dim = value.shape[axis]
    return dim if isinstance(dim, int) else sizes.get(dim.value or "", 0)


def _compared_constants(value: ir.Value) -> Choices | None:
    """Constants that the model compares a value with: a sampling rate, a mode."""
    others = [node.inputs[1 - index] for node, index in _uses(value) if node.op_type == "Equal"]
    tensors = (None if other is None else ir.convenience.get_const_tensor(other) for other in others)
    constants = [tensor.numpy().ravel() for tensor in tensors if tensor is not None]
    return np.unique(np.concatenate(constants)).astype(np.int64) if constants else None


def _name(value: ir.Value) -> str:
    return value.name or ""


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if value.dtype is None or value.dtype == ir.DataType.STRING or not isinstance(value.type, ir.TensorType):
        raise InputError(f"input {_name(value)!r} has type {value.type}; random values need a numeric tensor")
    return value.dtype.numpy()

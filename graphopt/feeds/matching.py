"""Whether the feeds that a user gives fit a model, asked before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from graphopt.arrays import Array, Feeds
from graphopt.errors import InputError


def match_feeds(variants: Sequence[ir.Model], feeds: Feeds) -> Feeds:
    """The feeds under the names of the inputs; a single array serves a single input whatever its name.

    Raises InputError if a name is missing or unknown, a dtype is another, or the shapes fit none of the variants.
    """
    inputs = {value.name or "": value for value in _inputs(variants[0])}
    if len(inputs) == len(feeds) == 1:
        feeds = dict(zip(inputs, feeds.values(), strict=True))
    if missing := [name for name in inputs if name not in feeds]:
        raise InputError(
            f"no data for input {', '.join(missing)}; the data has {', '.join(feeds) or 'nothing'}"
        )
    if unknown := [name for name in feeds if name not in inputs]:
        raise InputError(f"the model has no input {', '.join(unknown)}; its inputs are {', '.join(inputs)}")
    for name, array in feeds.items():
        _require_dtype(inputs[name], array)
    if not any(fits(variant, feeds) for variant in variants):
        given = ", ".join(f"{name}{list(array.shape)}" for name, array in feeds.items())
        wanted = " or ".join(", ".join(map(_described, _inputs(variant))) for variant in variants)
        raise InputError(f"the data has the shapes {given}, the model takes {wanted}")
    return feeds


def fits(model: ir.Model, feeds: Feeds) -> bool:
    """Whether arrays have the shapes that a model takes; free dimensions take any size."""
    return all(_agrees(value.shape, feeds[value.name or ""].shape) for value in _inputs(model))


def _require_dtype(value: ir.Value, array: Array) -> None:
    if value.dtype is None or value.dtype == ir.DataType.STRING:
        return
    wanted = value.dtype.numpy()
    if array.dtype != wanted:
        raise InputError(
            f"the data for input {value.name!r} has dtype {array.dtype}, the model takes {wanted}; "
            f"convert it with .astype({str(wanted)!r})"
        )


def _agrees(shape: ir.Shape | None, actual: tuple[int, ...]) -> bool:
    if shape is None:
        return True
    return len(shape) == len(actual) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(shape, actual, strict=True)
    )


def _described(value: ir.Value) -> str:
    dims = "any shape" if value.shape is None else f"[{', '.join(str(dim) for dim in value.shape)}]"
    return f"{value.name}{dims}"


def _inputs(model: ir.Model) -> Iterator[ir.Value]:
    return (value for value in model.graph.inputs if not value.is_initializer())

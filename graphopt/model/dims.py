"""Free dimensions and inputs: finding them, and fixing them to numbers or values."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from graphopt.errors import InputError, ShapeError
from graphopt.model import edit


def free_dims(model: ir.Model) -> dict[str, list[str]]:
    """For each input with free dimensions their names, ``axis 2`` for one without a name."""
    found = {}
    for value in _real_inputs(model):
        if value.shape is None:
            found[value.name or ""] = ["rank"]
            continue
        names = [
            dim.value or f"axis {axis}" for axis, dim in enumerate(value.shape) if not isinstance(dim, int)
        ]
        if names:
            found[value.name or ""] = names
    return found


def bind_dims(
    model: ir.Model,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, tuple[int | str, ...]] | None = None,
) -> None:
    """Fixes free dimensions by name (everywhere they occur) or by the whole shape of an input.

    Raises ``ShapeError`` for a name that the model does not have, a size that is not positive, a shape of another rank,
    and for sizes that contradict the model or each other.
    """
    sizes = dict(dims or {})
    _check_names(model, sizes, input_shapes or {})
    for name, shape in (input_shapes or {}).items():
        _collect(_input(model, name), shape, sizes)
    for name, size in sizes.items():
        if size < 1:
            raise ShapeError(f"dimension {name!r} cannot be {size}: sizes are positive")
    for value in _interface(model):
        if value.shape is not None:
            value.shape = ir.Shape(_bound(dim, sizes) for dim in value.shape)
    if sizes or input_shapes:
        forget_free_shapes(model)


def bind_first_dims(model: ir.Model) -> dict[str, str]:
    """Sets the free first dimension of every input to 1; gives the name of the dimension for each such input."""
    bound = {}
    for value in _real_inputs(model):
        if value.shape is None or len(value.shape) == 0 or isinstance(first := value.shape[0], int):
            continue
        bound[value.name or ""] = first.value or "axis 0"
        if first.value is not None:
            bind_dims(model, {first.value: 1})
        else:
            value.shape = ir.Shape([1, *value.shape[1:]])
            forget_free_shapes(model)
    return bound


def bind_values(model: ir.Model, values: Mapping[str, np.ndarray]) -> None:
    """Turns inputs into constants. Raises ``InputError`` for an unknown name or a value that does not fit."""
    for name, array in values.items():
        value = _find_input(model, name)
        if value is None:
            raise InputError(f"no input is called {name!r}; the inputs are {_names(model)}")
        content = _fitting(value, np.asarray(array))
        model.graph.inputs.remove(value)
        if value.is_initializer():
            del model.graph.initializers[name]
        value.const_value = ir.Tensor(content, name=name)
        value.shape = ir.Shape(content.shape)
        model.graph.register_initializer(value)


def forget_free_shapes(model: ir.Model) -> None:
    """Drops inferred shapes that are not fixed, so that they are inferred anew from what is fixed now."""
    kept = {id(value) for value in _interface(model)}
    for graph in edit.graphs(model):
        for node in graph:
            for output in node.outputs:
                if id(output) not in kept and output.shape is not None and not output.shape.is_static():
                    output.shape = None
        for value in graph.outputs if graph is not model.graph else ():
            value.shape = value.shape if value.shape is not None and value.shape.is_static() else None


def _fitting(value: ir.Value, array: np.ndarray) -> np.ndarray:
    if value.dtype == ir.DataType.STRING:
        raise InputError(f"{value.name}: a string input cannot be bound")
    wanted = value.dtype.numpy() if value.dtype is not None else array.dtype
    if (
        array.dtype != wanted
        and not np.can_cast(array.dtype, wanted, "same_kind")
        and array.dtype.kind not in "iu"
    ):
        raise InputError(
            f"{value.name}: a value of dtype {array.dtype} cannot be bound to an input of {wanted}"
        )
    if value.shape is not None and not _agrees(value.shape, array.shape):
        raise InputError(
            f"{value.name}: a value of shape {array.shape} does not fit {list(map(str, value.shape))}"
        )
    return array.astype(wanted)


def _agrees(shape: ir.Shape, actual: tuple[int, ...]) -> bool:
    return len(shape) == len(actual) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(shape, actual, strict=True)
    )


def _collect(value: ir.Value, shape: tuple[int | str, ...], sizes: dict[str, int]) -> None:
    """Adds the sizes that ``shape`` gives to named dimensions to ``sizes``, and fixes the unnamed ones."""
    if value.shape is None:
        value.shape = ir.Shape(shape)
        return
    if len(shape) != len(value.shape):
        raise ShapeError(
            f"{value.name}: the shape {shape} has {len(shape)} dimensions, the input has {len(value.shape)}"
        )
    fixed = []
    for axis, (old, new) in enumerate(zip(value.shape, shape, strict=True)):
        if isinstance(old, int) and old != new:
            raise ShapeError(
                f"{value.name}: dimension {axis} is fixed to {old} in the model and cannot be {new}"
            )
        name = None if isinstance(old, int) else old.value
        if name is not None and isinstance(new, int) and sizes.setdefault(name, new) != new:
            raise ShapeError(f"dimension {name!r} cannot be both {sizes[name]} and {new}")
        fixed.append(old if name is not None else new)
    value.shape = ir.Shape(fixed)


def _check_names(
    model: ir.Model, sizes: Mapping[str, int], input_shapes: Mapping[str, tuple[int | str, ...]]
) -> None:
    known = {
        dim.value
        for value in _real_inputs(model)
        for dim in value.shape or ()
        if not isinstance(dim, int) and dim.value
    }
    for name in sizes:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ShapeError(f"no input has a dimension called {name!r}; named dimensions: {there}")
    for name in input_shapes:
        _input(model, name)


def _bound(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    return dim if isinstance(dim, int) or dim.value is None else sizes.get(dim.value, dim)


def _input(model: ir.Model, name: str) -> ir.Value:
    found = _find_input(model, name)
    if found is None:
        raise ShapeError(f"no input is called {name!r}; the inputs are {_names(model)}")
    return found


def _find_input(model: ir.Model, name: str) -> ir.Value | None:
    return next((value for value in model.graph.inputs if value.name == name), None)


def _names(model: ir.Model) -> str:
    return ", ".join(repr(value.name) for value in _real_inputs(model)) or "none"


def _real_inputs(model: ir.Model) -> Iterator[ir.Value]:
    return (value for value in model.graph.inputs if not value.is_initializer())


def _interface(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *model.graph.outputs]

"""Students made of a model by hand: with zeros, with shared weights, with integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from graphopt.compiling.presets import run_preset
from graphopt.compression.quantizing import quantize
from graphopt.feeds.data import Dataset
from graphopt.model import edit, normalise
from graphopt.rewriting.pipeline import Context

OPSET, IR_VERSION = 21, 10
"""Which know integers of four bits."""

LARGEST_LEVEL = 7


def sparse(model: ir.Model) -> ir.Model:
    """With two zeros among any four neighbours along the input channels of each convolution, the smallest ones."""
    student = _optimised(model)
    for value in _filters(student):
        array = _array(value)
        if array.shape[1] % 4:
            continue
        groups = np.moveaxis(array, 1, -1).reshape(-1, 4).copy()
        np.put_along_axis(groups, np.argsort(np.abs(groups), axis=1)[:, :2], 0, axis=1)
        shape = array.shape[:1] + array.shape[2:] + array.shape[1:2]
        _put(value, np.moveaxis(groups.reshape(shape), -1, 1))
    return student


def clustered(model: ir.Model, count: int) -> ir.Model:
    """With so many different weights in each convolution, by k-means from quantiles on."""
    student = _optimised(model)
    student.opset_imports[""], student.ir_version = OPSET, IR_VERSION
    names = edit.Names(student)
    for value in _filters(student):
        array = _array(value)
        book = _means(array.reshape(-1), count)
        indices = np.abs(array[..., None] - book).argmin(-1).astype(np.uint8)
        packed = (
            ir.Tensor(indices.astype(ir.DataType.UINT4.numpy()), ir.DataType.UINT4)
            if count <= 16
            else indices
        )
        places = edit.add_constant(student.graph, packed, names.fresh(f"{value.name}_indices"))
        codebook = edit.add_constant(student.graph, book, names.fresh(f"{value.name}_codebook"))
        cast = ir.node("Cast", [places], {"to": ir.DataType.INT64})
        gather = ir.node("Gather", [codebook, cast.outputs[0]], {"axis": 0})
        cast.outputs[0].name, gather.outputs[0].name = (
            names.fresh(f"{value.name}_{end}") for end in ("places", "chosen")
        )
        student.graph.insert_before(student.graph[0], [cast, gather])
        value.replace_all_uses_with(gather.outputs[0])
        edit.drop_initializer(value)
    normalise(student)
    return student


def four_bits(model: ir.Model) -> ir.Model:
    """With weights of convolutions of four bits, a scale a channel, rounded to the nearest."""
    student = _optimised(model)
    student.opset_imports[""], student.ir_version = OPSET, IR_VERSION
    names = edit.Names(student)
    for value in _filters(student):
        array = _array(value)
        scales = np.abs(array).max((1, 2, 3)) / np.float32(LARGEST_LEVEL)
        levels = np.rint(array / scales.reshape(-1, 1, 1, 1)).astype(ir.DataType.INT4.numpy())
        inputs = [
            edit.add_constant(student.graph, each, names.fresh(f"{value.name}_{end}"))
            for each, end in ((ir.Tensor(levels, ir.DataType.INT4), "levels"), (scales, "scales"))
        ]
        decoded = ir.node("DequantizeLinear", inputs, {"axis": 0})
        decoded.outputs[0].name = names.fresh(f"{value.name}_decoded")
        student.graph.insert_before(student.graph[0], [decoded])
        value.replace_all_uses_with(decoded.outputs[0])
        edit.drop_initializer(value)
    normalise(student)
    return student


def makers(calib: Dataset) -> Mapping[str, Callable[[ir.Model], ir.Model]]:
    """Students that keep the shape of their teacher, by name."""
    return {
        "16 clusters": lambda model: clustered(model, 16),
        "8 clusters": lambda model: clustered(model, 8),
        "2:4 sparse": sparse,
        "int8": lambda model: quantize(model, calib).model,
        "int4 weights": four_bits,
    }


def traits(model: ir.Model) -> dict[str, object]:
    """What must not change: shapes, where zeros are, how many values a weight has, types of constants."""
    found: dict[str, object] = {}
    for name, value in model.graph.initializers.items():
        array = _array(value)
        if array.dtype == np.float32 and array.ndim > 1:
            found[name] = array.shape, (array == 0).tobytes() if (array == 0).any() else b""
        elif array.dtype == np.float32:
            found[name] = array.shape
        elif "_indices" in name:
            found[name] = array.tobytes()
        else:
            found[name] = array.shape, str(array.dtype)
    return found


def _optimised(model: ir.Model) -> ir.Model:
    student = model.clone()
    normalise(student)
    run_preset(student, "O2", (), Context())
    return student


def _filters(model: ir.Model) -> list[ir.Value]:
    weights = (node.inputs[1] for node in model.graph if node.op_type == "Conv")
    return [value for value in dict.fromkeys(weights) if value is not None]


def _means(values: np.ndarray, count: int, rounds: int = 30) -> np.ndarray:
    book = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(rounds):
        nearest = np.abs(values[:, None] - book).argmin(1)
        sums, sizes = np.bincount(nearest, values, count), np.bincount(nearest, minlength=count)
        book = np.where(sizes > 0, sums / np.maximum(sizes, 1), book)
    found: np.ndarray = book.astype(np.float32)
    return found


def _array(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    found: np.ndarray = value.const_value.numpy()
    return found


def _put(value: ir.Value | None, array: np.ndarray) -> None:
    assert value is not None
    value.const_value = ir.Tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)

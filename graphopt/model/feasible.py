"""What no compiler could make work: shapes that contradict each other, tensors beyond any memory, inputs without numbers."""

from __future__ import annotations

import math
import re
from typing import Any

import onnx
import onnx_ir as ir

from graphopt.errors import ModelError, ShapeError
from graphopt.model import edit
from graphopt.model.inference import without_weights

MOST_ELEMENTS = 2**31 - 1
"""Of one tensor, because kernels index it with 32 bits."""

NO_NUMBERS = frozenset(
    {ir.DataType.STRING, ir.DataType.UNDEFINED, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}
)


def require_feasible(model: ir.Model) -> None:
    """Raises ModelError or ShapeError, which name the value or the node, if a model with fixed shapes cannot be compiled."""
    _require_numbers(model)
    _require_consistent_shapes(model)
    _require_small_tensors(model)


def _require_numbers(model: ir.Model) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if not isinstance(value.type, ir.TensorType | None) or value.dtype in NO_NUMBERS:
            raise ModelError(
                f"{value.name!r} is a {value.type}; inputs and outputs of a compiled model are tensors of numbers or booleans"
            )


def _require_consistent_shapes(model: ir.Model) -> None:
    try:
        onnx.shape_inference.infer_shapes(without_weights(model), strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        message = " ".join(str(error).split())
        if not _is_about_a_function(message):
            raise ShapeError(f"the shapes in the model contradict each other: {message}") from error


def _is_about_a_function(message: str) -> bool:
    """ONNX's inference may fail inside the function body of a sound node, as it does for MeanVarianceNormalization."""
    found = re.search(r"\(op_type:(\w+)", message)
    if found is None or not onnx.defs.has(found.group(1)):
        return False
    schema: Any = onnx.defs.get_schema(found.group(1))
    return bool(schema.has_function or schema.has_context_dependent_function)


def _require_small_tensors(model: ir.Model) -> None:
    for graph in edit.graphs(model):
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            dims = [dim for dim in value.shape or () if isinstance(dim, int)]
            if math.prod(dims) > MOST_ELEMENTS:
                raise ShapeError(
                    f"{value.name!r} is too large: {' x '.join(map(str, dims))} elements, of at most {MOST_ELEMENTS}"
                )

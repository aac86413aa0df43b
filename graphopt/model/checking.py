"""Checks a model against the ONNX specification."""

import onnx
import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.model import edit
from graphopt.model.inference import without_weights


def validate(model: ir.Model) -> None:
    """Raises ``ModelError`` if ``model`` breaks the ONNX specification.

    Operators of custom domains are accepted as they are. A model without any inputs is fine, one without outputs is not.
    """
    _require_outputs(model)
    _require_producers(model)
    try:
        onnx.checker.check_model(without_weights(model), skip_opset_compatibility_check=False)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"invalid model: {_one_line(error)}") from error


def _require_outputs(model: ir.Model) -> None:
    if not model.graph.outputs:
        raise ModelError("invalid model: the graph has no outputs")
    names = [value.name for value in model.graph.outputs]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(
                f"invalid model: the output {name!r} is listed twice; give each output its own name"
            )


def _require_producers(model: ir.Model) -> None:
    for node in edit.nodes(model.graph):
        for value in node.inputs:
            if value is not None and not _has_source(value):
                raise ModelError(
                    f"invalid model: node {node.name!r} ({node.op_type}) reads {value.name!r}, "
                    "which is no input, no initializer and computed by no node"
                )


def _has_source(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

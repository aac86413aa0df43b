"""Shapes and constants that are only known once the operands are lowered: those of values inside bodies of loops, and
behind operators that ONNX's own inference does not know.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from graphopt.backends.lower.context import NEWEST, Lowering
from graphopt.backends.lower.operator import is_bfloat16
from graphopt.backends.tensor import Tensor
from graphopt.model.inference import refine, refine_shape

SMALL = 1024
"""Elements of a constant up to which it is evaluated, or looked at to infer a shape."""

STANDARD = ("", "ai.onnx", "graphopt")
"""Domains of operators with a schema of the standard."""

RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
)
"""Operators whose value is not a function of their operands."""


def infer_outputs(ctx: Lowering, node: ir.Node) -> None:
    """Give the outputs of a node the types and shapes that follow from the tensors of its inputs, where unknown."""
    if all(is_known(value) for value in node.outputs) or _has_body(node) or _schema(ctx, node) is None:
        return
    tensors = {value.name or "": ctx.tensor(value) for value in node.inputs if value is not None}
    types = {name: _type(tensor) for name, tensor in tensors.items()}
    data = {
        name: onnx.numpy_helper.from_array(tensor.constant, name)
        for name, tensor in tensors.items()
        if tensor.constant is not None and tensor.size <= SMALL
    }
    imports = [onnx.helper.make_opsetid("", _version(ctx, node))]
    try:
        found = onnx.shape_inference.infer_node_outputs(
            _schema(ctx, node), _standard(node), types, data, opset_imports=imports
        )
    except (onnx.shape_inference.InferenceError, RuntimeError, KeyError, ValueError):
        return
    for value in node.outputs:
        if value.name in found:
            refine(value, found[value.name])


def note_shapes(ctx: Lowering, node: ir.Node) -> None:
    """Give the outputs of a lowered node, where unknown, the types and shapes of their tensors."""
    for value in node.outputs:
        tensor = ctx.values.get(value)
        if tensor is None or is_known(value):
            continue
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(tensor.dtype)))
        refine_shape(value, tensor.shape)


def evaluate(ctx: Lowering, node: ir.Node) -> bool:
    """Compute a node now if all its inputs are small constants; true if that was possible."""
    inputs = {value.name or "": ctx.tensor(value).constant for value in node.inputs if value is not None}
    if not _is_evaluable(ctx, node) or any(a is None or a.size > SMALL for a in inputs.values()):
        return False
    outputs = [value for value in node.outputs if value.name]
    try:
        results: list[Any] = _evaluator(ctx, node, outputs).run(None, inputs)  # type: ignore[assignment]
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        return False
    if not all(isinstance(result, np.ndarray | np.generic) for result in results):
        return False
    for value, result in zip(outputs, results, strict=True):
        ctx.values[value] = ctx.constant(np.asarray(result))
    return True


def is_known(value: ir.Value) -> bool:
    """Whether a value's type and fixed shape are known."""
    return value.dtype is not None and value.shape is not None and value.shape.is_static()


def _is_evaluable(ctx: Lowering, node: ir.Node) -> bool:
    if any(map(is_bfloat16, (*node.inputs, *node.outputs))):
        return False
    is_function = node.op_type == "Constant" or any(value is not None for value in node.inputs)
    return (
        is_function and not _has_body(node) and node.op_type not in RANDOM and _schema(ctx, node) is not None
    )


def _evaluator(ctx: Lowering, node: ir.Node, outputs: list[ir.Value]) -> ReferenceEvaluator:
    inputs = [
        onnx.helper.make_value_info(value.name or "", _type(ctx.tensor(value)))
        for value in dict.fromkeys(node.inputs)
        if value is not None
    ]
    results = [onnx.helper.make_empty_tensor_value_info(value.name or "") for value in outputs]
    graph = onnx.helper.make_graph([_standard(node)], "evaluated", inputs, results)
    imports = [onnx.helper.make_opsetid("", _version(ctx, node))]
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))


def _has_body(node: ir.Node) -> bool:
    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def _version(ctx: Lowering, node: ir.Node) -> int:
    version = ctx.opset(node)
    return onnx.defs.onnx_opset_version() if version == NEWEST else version


def _schema(ctx: Lowering, node: ir.Node) -> Any:
    version = _version(ctx, node)
    if node.domain not in STANDARD or not onnx.defs.has(node.op_type, version, ""):
        return None
    return onnx.defs.get_schema(node.op_type, version, "")


def _standard(node: ir.Node) -> onnx.NodeProto:
    proto: onnx.NodeProto = ir.to_proto(node)
    proto.domain = ""
    return proto


def _type(tensor: Tensor) -> onnx.TypeProto:
    kind = ir.DataType.from_numpy(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_type_proto(kind.value, tensor.shape)

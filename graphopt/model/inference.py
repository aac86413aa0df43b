"""Whole-model shape inference by ONNX's own functions, without shipping the weights through protobuf."""

from collections.abc import Hashable, Iterable

import onnx
import onnx_ir as ir

from graphopt.model import edit

SMALL = 1024
"""Initializers up to this many bytes go along, since shapes may depend on their data."""


def infer_shapes(model: ir.Model) -> bool:
    """Adds to every value the type and shape that ONNX's inference finds; true if it found anything new.

    What the model states already stays, except that a fixed dimension replaces a free one. Where the model contradicts
    itself, inference leaves the values unknown; it never fails.
    """
    skeleton = without_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError):
        return False
    changed = _merge(model.graph, inferred.graph)
    for node in edit.nodes(model.graph):
        is_news(node)
    return changed


DATA = 1024
"""Elements of the largest tensor whose data inference looks at."""


def is_news(node: ir.Node) -> bool:
    """Whether more is known of the inputs of ``node`` than when this was asked last, so that inference may find more."""
    facts = tuple(_facts(value) for value in node.inputs)
    if node.meta.get(_FACTS) == facts and node.op_type not in edit.CONTROL_FLOW:
        return False
    node.meta[_FACTS] = facts
    return True


_FACTS = "graphopt.inferred_from"


def _facts(value: ir.Value | None) -> Hashable:
    if value is None:
        return None
    tensor = edit.tensor(value)
    data = tensor if tensor is not None and tensor.size <= DATA else None
    return value.dtype, None if value.shape is None else value.shape.dims, data


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with its large initializers of the main graph as inputs."""
    graph = model.graph
    large = [
        value
        for value in graph.initializers.values()
        if value.const_value is not None and edit.byte_size(value.const_value) > SMALL
    ]
    for value in large:
        edit.drop_initializer(value)
    try:
        skeleton = ir.to_proto(model)
    finally:
        for value in large:
            graph.register_initializer(value)
    given = {value.name for value in graph.inputs}
    skeleton.graph.input.extend(_value_info(value) for value in large if value.name not in given)
    return skeleton


def _value_info(value: ir.Value) -> onnx.ValueInfoProto:
    tensor = value.const_value
    assert tensor is not None
    return onnx.helper.make_tensor_value_info(
        value.name or "", tensor.dtype.value, list(tensor.shape.numpy())
    )


def _merge(graph: ir.Graph, inferred: onnx.GraphProto) -> bool:
    found = {info.name: info for info in (*inferred.value_info, *inferred.output)}
    changed = False
    for node, node_proto in zip(graph, inferred.node, strict=True):
        for output in node.outputs:
            if output.name in found:
                changed |= refine(output, found[output.name].type)
        bodies = (attribute.g for attribute in node_proto.attribute if attribute.HasField("g"))
        for subgraph, body in zip(_bodies(node), bodies, strict=True):
            changed |= _merge(subgraph, body)
    return changed


def _bodies(node: ir.Node) -> Iterable[ir.Graph]:
    return (attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH)


def refine(value: ir.Value, found: onnx.TypeProto) -> bool:
    """Adds what ``found`` knows about ``value``; a rank that contradicts what is known is ignored."""
    if found.WhichOneof("value") != "tensor_type":
        return _set_other_type(value, found)
    changed = False
    if value.type is None and found.tensor_type.elem_type:
        value.type = ir.TensorType(ir.DataType(found.tensor_type.elem_type))
        changed = True
    if not found.tensor_type.HasField("shape"):
        return changed
    return refine_shape(value, [_dim(dim) for dim in found.tensor_type.shape.dim]) or changed


def refine_shape(value: ir.Value, dims: Iterable[int | str | None]) -> bool:
    """Fills in dimensions of ``value`` that are free or unknown; true if that changed anything."""
    new = ir.Shape(dims)
    old = value.shape
    if old is not None:
        if len(old) != len(new):
            return False
        new = ir.Shape(_finer(mine, other) for mine, other in zip(old, new, strict=True))
        if new == old:
            return False
    value.shape = new
    return True


def _finer(mine: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    if isinstance(mine, int) or (mine.value is not None and not isinstance(other, int)):
        return mine
    return other


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    known = dim.dim_param and not dim.dim_param.startswith("unk__")
    return str(dim.dim_param) if known else None


def _set_other_type(value: ir.Value, found: onnx.TypeProto) -> bool:
    if value.type is not None or found.WhichOneof("value") is None:
        return False
    described = ir.serde.deserialize_type_proto_for_type(found)
    value.type = described
    return described is not None

"""The shapes of one node's outputs, from its inputs' shapes and whatever is known of their data."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute, opset
from graphopt.model.inference import DATA, is_news, refine, refine_shape
from graphopt.passes.symbolic import UNKNOWN, Entry, Symbol, entries, to_dims

Known = Mapping[ir.Value, np.ndarray]


def infer(node: ir.Node, known: Known) -> None:
    """Refines types and shapes of the outputs of ``node``; ``known`` holds symbolic data of small integer tensors."""
    if all(_is_settled(output) for output in node.outputs):
        return
    if is_news(node):
        infer_by_schema(node, known)
    rule = _RULES.get((node.domain, node.op_type))
    if rule is not None and not _is_settled(node.outputs[0]):
        dims = rule(node, known)
        if dims is not None:
            refine_shape(node.outputs[0], dims)
    if node.domain == "" and node.op_type == "If":
        _infer_branches(node)


def _is_settled(value: ir.Value) -> bool:
    return value.dtype is not None and value.shape is not None and value.shape.is_static()


def infer_by_schema(node: ir.Node, known: Known) -> None:
    """ONNX's own inference for this node; does nothing for unknown operators and missing input types."""
    version = opset(node)
    if not onnx.defs.has(node.op_type, max(version, 1), node.domain):
        return
    schema = onnx.defs.get_schema(node.op_type, max(version, 1), node.domain)
    inputs = [value for value in node.inputs if value is not None]
    types = {value.name or "": _type_proto(value) for value in (*inputs, *_captured(node))}
    data = {value.name or "": proto for value in inputs if (proto := _data_proto(value, known)) is not None}
    imports = [onnx.helper.make_opsetid(domain, number) for domain, number in _imports(node).items()]
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, ir.to_proto(node), types, data, opset_imports=imports
        )
    except (onnx.shape_inference.InferenceError, RuntimeError, KeyError, ValueError):
        return
    for output in node.outputs:
        if output.name in found:
            refine(output, found[output.name])


def _imports(node: ir.Node) -> dict[str, int]:
    return {} if node.graph is None else node.graph.opset_imports


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of outer graphs that the subgraphs of ``node`` read."""
    return [
        value
        for graph in edit.subgraphs(node)
        for inner in edit.nodes(graph)
        for value in inner.inputs
        if value is not None and value.name
    ]


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    proto = onnx.TypeProto()
    if value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None and value.type is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _data_proto(value: ir.Value, known: Known) -> onnx.TensorProto | None:
    tensor = edit.tensor(value)
    if tensor is None or tensor.size > DATA:
        return None
    return ir.serde.serialize_tensor(tensor)


def _infer_branches(node: ir.Node) -> None:
    """An output of If has the dimensions that both branches agree on."""
    branches = list(edit.subgraphs(node))
    for output, *results in zip(node.outputs, *(graph.outputs for graph in branches), strict=True):
        shapes = [value.shape for value in results]
        if any(shape is None or len(shape) != len(shapes[0] or ()) for shape in shapes):
            continue
        refine_shape(output, [_common(dims) for dims in zip(*shapes, strict=True)])


def _common(dims: Sequence[int | ir.SymbolicDim]) -> int | str | None:
    if any(dim != dims[0] for dim in dims):
        return None
    return dims[0] if isinstance(dims[0], int) else dims[0].value


def _data(node: ir.Node, index: int, known: Known) -> list[Entry] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if value in known:
        return list(known[value].reshape(-1).tolist())
    array = edit.constant(value)
    return None if array is None else list(array.reshape(-1).tolist())


Dims = list[int | str | None]


def _reshape(node: ir.Node, known: Known) -> Dims | None:
    target = _data(node, 1, known)
    source = entries(node.inputs[0])  # type: ignore[arg-type]
    if target is None:
        return None
    if not attribute(node, "allowzero"):
        copied = [] if source is None else source
        sizes = [*copied, *[UNKNOWN] * (len(target) - len(copied))]
        target = [size if dim == 0 else dim for dim, size in zip(target, sizes, strict=False)]
    if target.count(-1) == 1:
        others = [dim for dim in target if dim != -1]
        target[target.index(-1)] = UNKNOWN if source is None else _rest(source, others)
    return to_dims(target)


def _rest(source: Sequence[Entry], given: Sequence[Entry]) -> Entry:
    """The one size that makes the elements of ``given`` as many as those of ``source``."""
    left, right = list(source), list(given)
    for dim in given:
        if isinstance(dim, Symbol) and dim in left:
            left.remove(dim)
            right.remove(dim)
    if any(not isinstance(dim, int) for dim in right):
        return UNKNOWN
    symbols = [dim for dim in left if not isinstance(dim, int)]
    number, divisor = (math.prod(dim for dim in dims if isinstance(dim, int)) for dims in (left, right))
    if divisor and not symbols and number % divisor == 0:
        return number // divisor
    return symbols[0] if len(symbols) == 1 and number == divisor else UNKNOWN


def _expand(node: ir.Node, known: Known) -> Dims | None:
    target = _data(node, 1, known)
    source = entries(node.inputs[0])  # type: ignore[arg-type]
    if target is None or source is None:
        return None
    return _broadcast_dims(source, target)


def _broadcast_dims(left: list[Entry], right: list[Entry]) -> Dims:
    rank = max(len(left), len(right))
    left, right = ([1] * (rank - len(dims)) + dims for dims in (left, right))
    return to_dims(list(map(_broadcast, left, right)))


def _broadcast(left: Entry, right: Entry) -> Entry:
    if left == 1 or left == right:
        return right
    if right == 1 or (isinstance(left, int) and not isinstance(right, int)):
        return left
    return right if isinstance(right, int) else UNKNOWN


def _constant_of_shape(node: ir.Node, known: Known) -> Dims | None:
    target = _data(node, 0, known)
    return None if target is None else to_dims(target)


def _quantized_binary(node: ir.Node, known: Known) -> Dims | None:
    """QLinearAdd and QLinearMul: operands at 0 and 3, both broadcast."""
    left, right = (entries(node.inputs[index]) for index in (0, 3))  # type: ignore[arg-type]
    _set_type(node, None if node.inputs[0] is None else node.inputs[0].type)
    return None if left is None or right is None else _broadcast_dims(left, right)


def _like_first(node: ir.Node, known: Known) -> Dims | None:
    """Quantized activations: type and shape of the first input."""
    _set_type(node, None if node.inputs[0] is None else node.inputs[0].type)
    return _dims_of(node.inputs[0])


def _requantized(node: ir.Node, known: Known) -> Dims | None:
    """QuantizeLinear of ONNX Runtime's own domain: the dtype is that of the zero point, else uint8."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    _set_type(node, ir.TensorType(ir.DataType.UINT8) if zero is None else zero.type)
    return _dims_of(node.inputs[0])


def _dequantized(node: ir.Node, known: Known) -> Dims | None:
    _set_type(node, None if node.inputs[1] is None else node.inputs[1].type)
    return _dims_of(node.inputs[0])


def _packed_product(node: ir.Node, known: Known) -> Dims | None:
    """MatMulNBits: as many columns as its attribute says."""
    _set_type(node, None if node.inputs[0] is None else node.inputs[0].type)
    rows = _dims_of(node.inputs[0])
    return None if rows is None else [*rows[:-1], attribute(node, "N")]


def _quantized_gemm(node: ir.Node, known: Known) -> Dims | None:
    """QGemm: integers if there is an output zero point, else float32."""
    zero = node.inputs[8] if len(node.inputs) > 8 else None
    _set_type(node, ir.TensorType(ir.DataType.FLOAT) if zero is None else zero.type)
    left, right = (_dims_of(node.inputs[index]) for index in (0, 3))
    if left is None or right is None:
        return None
    return [left[1 if attribute(node, "transA") else 0], right[0 if attribute(node, "transB") else 1]]


def _quantized_pool(node: ir.Node, known: Known) -> Dims | None:
    """QLinearAveragePool: that of AveragePool, channels first."""
    _set_type(node, None if node.inputs[0] is None else node.inputs[0].type)
    if attribute(node, "channels_last"):
        return None
    source = ir.Value(name="source", type=ir.TensorType(ir.DataType.FLOAT), shape=node.inputs[0].shape)  # type: ignore[union-attr]
    attributes = [each for each in node.attributes.values() if each.name != "channels_last"]
    pool = ir.Node(
        "", "AveragePool", [source], attributes, outputs=[ir.Value(name="pooled")], version=POOL_OPSET
    )
    infer_by_schema(pool, known)
    return _dims_of(pool.outputs[0])


def _quantized_global_pool(node: ir.Node, known: Known) -> Dims | None:
    _set_type(node, None if node.inputs[0] is None else node.inputs[0].type)
    dims = _dims_of(node.inputs[0])
    if dims is None:
        return None
    channels = len(dims) - 1 if attribute(node, "channels_last") else 1
    return [dim if axis in (0, channels) else 1 for axis, dim in enumerate(dims)]


def _dims_of(value: ir.Value | None) -> Dims | None:
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _set_type(node: ir.Node, found: ir.TypeProtocol | None) -> None:
    node.outputs[0].type = node.outputs[0].type or found


POOL_OPSET = 19

_RULES: dict[tuple[str, str], Callable[[ir.Node, Known], Dims | None]] = {
    ("", "ConstantOfShape"): _constant_of_shape,
    ("", "Expand"): _expand,
    ("", "Reshape"): _reshape,
    ("com.microsoft", "DequantizeLinear"): _dequantized,
    ("com.microsoft", "MatMulNBits"): _packed_product,
    ("com.microsoft", "QGemm"): _quantized_gemm,
    ("com.microsoft", "QLinearAdd"): _quantized_binary,
    ("com.microsoft", "QLinearAveragePool"): _quantized_pool,
    ("com.microsoft", "QLinearGlobalAveragePool"): _quantized_global_pool,
    ("com.microsoft", "QLinearLeakyRelu"): _like_first,
    ("com.microsoft", "QLinearMul"): _quantized_binary,
    ("com.microsoft", "QLinearSigmoid"): _like_first,
    ("com.microsoft", "QLinearSoftmax"): _like_first,
    ("com.microsoft", "QuantizeLinear"): _requantized,
}

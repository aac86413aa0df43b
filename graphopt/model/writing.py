"""Writes a model: first to a temporary name in the same folder, then renamed, so a file is whole or not there."""

import math
import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from graphopt.errors import OutputError
from graphopt.files import require_replaceable
from graphopt.model import edit

PROTOBUF_LIMIT = 2**31 - 2**20
"""Weights beyond this many bytes go to a file of their own; protobuf messages end at 2 GiB."""


LONGEST_SHOWN = 16
"""Elements of a constant up to which `text` shows them."""


def proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a ``ModelProto``: weights included, apart from external tensors, which stay references to their files.

    Initializers say themselves what their types and shapes are, so ``value_info`` does not repeat it.
    """
    message = ir.serde.serialize_model(model)
    _describe_computed_values_only(message.graph)
    return message


def _describe_computed_values_only(graph: onnx.GraphProto) -> None:
    """Drops what ``value_info`` says about initializers, here and in subgraphs."""
    names = {tensor.name for tensor in graph.initializer}
    kept = [info for info in graph.value_info if info.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        if node.op_type in edit.CONTROL_FLOW:
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    _describe_computed_values_only(inner)


def text(model: ir.Model) -> str:
    """The model in ONNX's textual syntax, to read and to compare: of long constants only type and shape."""
    message = proto(model)
    _describe_long_constants(message.graph)
    return str(onnx.printer.to_text(message))


def _describe_long_constants(graph: onnx.GraphProto) -> None:
    long = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > LONGEST_SHOWN]
    kept = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= LONGEST_SHOWN]
    for tensor in long:
        graph.value_info.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    del graph.initializer[:]
    graph.initializer.extend(kept)


def save(model: ir.Model, path: str | Path, *, external_data: bool | None = None) -> None:
    """Writes ``model`` to ``path``, replacing it at once or not at all.

    ``external_data`` puts the weights into ``<name>.data`` next to it; by default only where they exceed what protobuf
    can hold. Raises ``OutputError`` if the folder is missing or cannot be written, the disk is full, or ``path`` is no file.
    """
    path = Path(path)
    require_replaceable(path)
    if external_data is None:
        external_data = _weight_bytes(model) > PROTOBUF_LIMIT
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            _write(model, Path(folder), path, external_data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write(model: ir.Model, folder: Path, path: Path, external_data: bool) -> None:
    written = folder / path.name
    data_name = path.name + ".data" if external_data else None
    if path.suffix.lower() == ".onnxtxt":
        written.write_text(onnx.printer.to_text(proto(model)))
    else:
        _write_binary(model, written, data_name)
    if data_name:
        os.replace(folder / data_name, path.with_name(data_name))
    os.replace(written, path)


def _write_binary(model: ir.Model, written: Path, data_name: str | None) -> None:
    if data_name is not None:
        ir.save(model, written, format="protobuf", external_data=data_name)
    else:
        written.write_bytes(proto(_with_data_inside(model)).SerializeToString())


def _with_data_inside(model: ir.Model) -> ir.Model:
    """The model itself, or a copy without references to external files, which would not move along."""
    if not any(isinstance(tensor, ir.ExternalTensor) for tensor in _weights(model)):
        return model
    copy = model.clone()
    for graph in edit.graphs(copy):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    return copy


def _weights(model: ir.Model) -> list[ir.TensorProtocol]:
    values = (value for graph in edit.graphs(model) for value in graph.initializers.values())
    return [value.const_value for value in values if value.const_value is not None]


def _weight_bytes(model: ir.Model) -> int:
    return sum(edit.byte_size(tensor) for tensor in _weights(model))

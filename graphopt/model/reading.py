"""Reads a model file, binary or text, with its external data; nothing outside the model's folder is opened."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

from graphopt.errors import ModelError
from graphopt.model import edit

SMALL_EXTERNAL = 1 << 16
"""Bytes up to which external data is read at once: it may hold shapes, and messages to ONNX's functions carry it."""

TEXT_SUFFIXES = frozenset({".onnxtxt", ".txt"})


def load(path: str | Path) -> ir.Model:
    """The model in ``path``, its nodes in topological order and its weights ready to be read.

    ``.onnxtxt`` is ONNX's text syntax, anything else a binary ``ModelProto``. Raises ``ModelError`` if the file
    cannot be read, is no ONNX model, has a cycle or a value that is computed twice, or if external data is missing,
    too short or outside the model's folder.
    """
    path = Path(path)
    content = _read_proto(path)
    if not content.HasField("graph"):
        raise ModelError(f"{path}: not an ONNX model (it has no graph). Is it a weights file, or empty?")
    model = _to_ir(content, path)
    _own_tensors(model, path)
    try:
        model.graph.sort()
    except ValueError as error:
        raise ModelError(f"{path}: the graph has a cycle; ONNX graphs must be acyclic") from error
    return model


def _read_proto(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix.lower() in TEXT_SUFFIXES:
        return _parse_text(content, path)
    try:
        message = onnx.ModelProto()
        message.ParseFromString(content)
    except DecodeError:
        raise ModelError(
            f"{path}: not an ONNX model, or truncated (the file is not a valid ModelProto)"
        ) from None
    return message


def _parse_text(content: bytes, path: Path) -> onnx.ModelProto:
    try:
        return onnx.parser.parse_model(content.decode())
    except (onnx.parser.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid ONNX text: {error}") from error


def _to_ir(content: onnx.ModelProto, path: Path) -> ir.Model:
    _require_single_assignment(content.graph, set(), path)
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns about, validate refuses
    try:
        return ir.from_proto(content)
    except Exception as error:  # the deserializer lets whatever it meets escape
        raise ModelError(f"{path}: malformed model: {_innermost(error)}") from error
    finally:
        logger.setLevel(level)


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _require_single_assignment(graph: onnx.GraphProto, outer: set[str], path: Path) -> None:
    """Every name is an input or computed once; a subgraph may not redefine a name of the graphs around it."""
    seen = outer | {value.name for value in graph.input}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in seen:
                raise ModelError(
                    f"{path}: the value {name!r} is defined twice, the second time by node {node.name!r} "
                    f"({node.op_type}); names must be unique"
                )
            seen.add(name)
    initializers = [tensor.name for tensor in graph.initializer]
    if len(set(initializers)) != len(initializers):
        twice = next(name for name in initializers if initializers.count(name) > 1)
        raise ModelError(f"{path}: there are two initializers called {twice!r}; names must be unique")


def _own_tensors(model: ir.Model, path: Path) -> None:
    """Lets each initializer own a numpy array, so that reading one does not copy it every time."""
    folder = path.resolve().parent
    for node, attribute in _tensor_attributes(model):
        tensor = attribute.as_tensor()
        if isinstance(tensor, ir.ExternalTensor):
            _open_external(tensor, folder, path)
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, _in_memory(tensor))
    for graph in (*edit.graphs(model), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            value.const_value = _owned(value.const_value, folder, path)


def _tensor_attributes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Attr]]:
    bodies = (model.graph, *(function.graph for function in model.functions.values()))
    for node in (node for body in bodies for node in ir.traversal.RecursiveGraphIterator(body)):
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                yield node, attribute


def _owned(tensor: ir.TensorProtocol | None, folder: Path, path: Path) -> ir.TensorProtocol:
    if tensor is None:
        raise ModelError(f"{path}: an initializer has no data")
    if isinstance(tensor, ir.ExternalTensor):
        _open_external(tensor, folder, path)
        return tensor if tensor.nbytes > SMALL_EXTERNAL else _in_memory(tensor)
    if tensor.dtype == ir.DataType.STRING:
        return tensor
    try:
        array = np.asarray(tensor.numpy())
    except Exception as error:  # protobuf, numpy and onnx_ir each raise their own
        raise ModelError(
            f"{path}: the data of initializer {tensor.name!r} does not fit its type "
            f"{tensor.dtype.name} and shape {list(tensor.shape)}: {error}"
        ) from error
    return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def _open_external(tensor: ir.ExternalTensor, folder: Path, path: Path) -> None:
    location = Path(tensor.location)
    file = (folder / location).resolve()
    if location.is_absolute() or not file.is_relative_to(folder):
        raise ModelError(
            f"{path}: the external data of {tensor.name!r} is outside the model's folder: {str(location)!r}. "
            "Refused; keep the data next to the model"
        )
    if not file.is_file():
        raise ModelError(f"{path}: the external data file {str(location)!r} is missing; expected at {file}")
    wanted = (tensor.offset or 0) + tensor.nbytes
    if file.stat().st_size < wanted or (tensor.length is not None and tensor.length < tensor.nbytes):
        raise ModelError(
            f"{path}: the external data file {str(location)!r} is too short for {tensor.name!r}: "
            f"{wanted} bytes needed, {file.stat().st_size} there"
        )
    tensor.base_dir = str(folder)
    try:
        tensor.numpy()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: the external data of {tensor.name!r} cannot be read: {error}") from error

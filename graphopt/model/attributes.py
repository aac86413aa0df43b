"""Attributes of nodes as Python values, with the defaults of their operators."""

from __future__ import annotations

import functools
from typing import Any

import onnx_ir as ir


def attribute(node: ir.Node, name: str) -> Any:
    """The Python value of an attribute: int, float, str, tuple, tensor, graph.

    A missing attribute has the default of the operator's schema at the opset of the graph, or None.
    """
    found = node.attributes.get(name)
    if found is not None:
        if found.is_ref():
            return None
        return tuple(found.value) if isinstance(found.value, list) else found.value
    return _default(node.domain, node.op_type, opset(node), name)


def opset(node: ir.Node) -> int:
    """The version of the opset that ``node`` belongs to; 0 if the model does not say."""
    if node.version is not None:
        return node.version
    return node.graph.opset_imports.get(node.domain, 0) if node.graph is not None else 0


@functools.cache
def _default(domain: str, op_type: str, version: int, name: str) -> Any:
    import onnx

    if not onnx.defs.has(op_type, version or 1, domain):
        return None
    schema = onnx.defs.get_schema(op_type, version or 1, domain)
    default = schema.attributes[name].default_value if name in schema.attributes else None
    if default is None or not default.name:
        return None
    value = onnx.helper.get_attribute_value(default)
    return value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value

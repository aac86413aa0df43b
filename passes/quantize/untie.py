"""Gives products weights of their own where they read a transposed constant, such as a table of embeddings that is the last matrix
too: as integers two copies are smaller than what they shared as floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute


def untie(model: ir.Model, wanted: Callable[[ir.Node], bool]) -> int:
    """Transpose the constants that the `wanted` MatMul nodes read, in place. Gives the number of those."""
    names, found = edit.Names(model), 0
    for node in list(model.graph):
        flipped = _transposed_constant(node)
        if flipped is not None and wanted(node):
            name = names.fresh(f"{node.name}_weight")
            node.replace_input_with(1, edit.add_constant(model.graph, flipped, name))
            found += 1
    return found


def _transposed_constant(node: ir.Node) -> np.ndarray | None:
    """The right operand of a MatMul that is a matrix transposed at run time."""
    producer = None if node.op_type != "MatMul" or node.inputs[1] is None else node.inputs[1].producer()
    if producer is None or (producer.domain, producer.op_type) != ("", "Transpose"):
        return None
    array = edit.constant(producer.inputs[0])
    if array is None or array.ndim != 2 or attribute(producer, "perm") not in (None, [1, 0], (1, 0)):
        return None
    return np.ascontiguousarray(array.T)

"""Gives nodes that read the same small constant copies of their own, so that equal biases do not tie channels together."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.model import edit

LARGEST = 1 << 12
"""Elements of the largest constant that is copied; what is shared and larger is meant to be."""


def separate(model: ir.Model) -> int:
    """Copy constants, in place. Gives the number of copies; `passes.sharing` undoes what pruning left equal."""
    names, found = edit.Names(model), 0
    for value in list(model.graph.initializers.values()):
        tensor = edit.tensor(value)
        if tensor is None or tensor.size > LARGEST or tensor.size < 2 or value.is_graph_output():
            continue
        for use in list(value.uses())[1:]:
            if use.node.graph is model.graph:
                copy = edit.add_constant(model.graph, tensor, names.fresh(value.name or "constant"))
                use.node.replace_input_with(use.idx, copy)
                found += 1
    return found

"""Reductions and pools that cover all of the image are global pools."""

import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.evaluate import axes_of
from graphopt.rewriting.pattern import Op, Var
from graphopt.rewriting.rewrite import Match, Replacement, Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
IMAGE = Var(
    "x", where=lambda value: value.dtype in FLOATS and value.shape is not None and len(value.shape) >= 4
)

GLOBAL = {
    "AveragePool": "GlobalAveragePool",
    "MaxPool": "GlobalMaxPool",
    "ReduceMax": "GlobalMaxPool",
    "ReduceMean": "GlobalAveragePool",
}


def _reduction(match: Match) -> Replacement:
    shape = match["x"].shape
    assert shape is not None
    axes = axes_of(match.root, [edit.constant(value) for value in match.root.inputs], 1)
    if not attribute(match.root, "keepdims"):
        return None
    if axes is None or sorted(axis % len(shape) for axis in axes) != list(range(2, len(shape))):
        return None
    return match.op(GLOBAL[match.root.op_type], [match["x"]])


def _pool(match: Match) -> Replacement:
    """One window, as large as the image and without padding."""
    shape, root = match["x"].shape, match.root
    assert shape is not None
    covers = tuple(shape.dims[2:]) == tuple(attribute(root, "kernel_shape"))
    padded = any(attribute(root, "pads") or ()) or attribute(root, "auto_pad") not in ("NOTSET", "VALID")
    spread = any(size != 1 for size in attribute(root, "dilations") or ())
    indices = any(output.uses() or output.is_graph_output() for output in root.outputs[1:])
    if not covers or padded or spread or indices:
        return None
    return match.op(GLOBAL[root.op_type], [match["x"]])


RULES = [
    Rule("global pool", Op(("ReduceMean", "ReduceMax"), IMAGE, ...), _reduction),
    Rule("global pool", Op(("AveragePool", "MaxPool"), IMAGE), _pool),
]

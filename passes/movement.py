"""Rules for operators that only move data: no-ops vanish, chains of reshapes, transposes and slices become one."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.evaluate import axes_of
from graphopt.rewriting.pattern import Const, Op, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that keep the elements in order and change the shape only."""

WHOLE = 2**31 - 1
"""An end of Slice at or beyond this means "to the end", whatever the size is."""


def same_shape(left: ir.Value, right: ir.Value) -> bool:
    """Whether both shapes are known and equal, free dimensions by name."""
    if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
        return False
    return all(
        one == other and (isinstance(one, int) or one.value is not None)
        for one, other in zip(left.shape, right.shape, strict=True)
    )


def _if_same_shape(match: Match) -> Replacement:
    return match["x"] if same_shape(match["x"], match.root.outputs[0]) else None


def _target(source: ir.Value, result: ir.Value) -> np.ndarray | None:
    """A target for Reshape from ``source`` to ``result``; None if more than one dimension is free."""
    if result.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else -1 for dim in result.shape]
    if dims.count(-1) > 1 or 0 in dims:
        return None
    if -1 in dims and (source.shape is None or 0 in source.shape.dims):
        return None
    return np.array(dims, dtype=np.int64)


INNER_RESHAPE = Op(RESHAPES, "x", ..., shared=True)


def _merge_reshapes(match: Match) -> Replacement:
    result = match.root.outputs[0]
    if same_shape(match["x"], result):
        return match["x"]
    target = _target(match["x"], result)
    if target is None:
        return Refuse("more than one dimension is free")
    return match.op("Reshape", [match["x"], target])


def _cancel_unsqueeze(match: Match) -> Replacement:
    """Squeeze of the axes that Unsqueeze added, for any shape."""
    inner = match.root.inputs[0].producer()  # type: ignore[union-attr]
    removed, added = _axes(match.root), _axes(inner)  # type: ignore[arg-type]
    if removed is None or added is None or any(axis < 0 for axis in (*removed, *added)):
        return None
    return match["x"] if sorted(removed) == sorted(added) else None


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    return axes_of(node, [edit.constant(value) for value in node.inputs], 1)


def _perm(node: ir.Node) -> tuple[int, ...] | None:
    """The permutation, written out; None if it is the default one of an unknown rank."""
    perm = attribute(node, "perm")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if perm is None and shape is not None:
        return tuple(reversed(range(len(shape))))
    return perm if perm is None else tuple(perm)


def _drop_transpose(match: Match) -> Replacement:
    perm = _perm(match.root)
    return match["x"] if perm is not None and list(perm) == sorted(perm) else None


INNER_TRANSPOSE = Op("Transpose", "x", shared=True)


def _merge_transposes(match: Match) -> Replacement:
    outer, inner = _perm(match.root), _perm(match.node(INNER_TRANSPOSE))
    if outer is None or inner is None:
        return Refuse("the rank is unknown")
    perm = [inner[axis] for axis in outer]
    return match["x"] if perm == sorted(perm) else match.op("Transpose", [match["x"]], perm=perm)


def _transpose_to_reshape(match: Match) -> Replacement:
    """A transpose that moves only axes of size 1 keeps the elements in order."""
    perm, shape = _perm(match.root), match["x"].shape
    if perm is None or shape is None:
        return None
    moved = [axis for axis in perm if shape[axis] != 1]
    if moved != sorted(moved):
        return None
    target = _target(match["x"], match.root.outputs[0])
    return None if target is None else match.op("Reshape", [match["x"], target])


def _drop_slice(match: Match) -> Replacement:
    steps = match.get("steps")
    if steps is not None and not np.all(match.array("steps") == 1):
        return None
    if _is_static(match["x"]) and same_shape(match["x"], match.root.outputs[0]):
        return match["x"]
    starts, ends = (edit.constant(match[name]) for name in ("starts", "ends"))
    if starts is None or ends is None:
        return None
    return match["x"] if not starts.any() and np.all(ends >= WHOLE) else None


def _is_static(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static()


def _drop_old_slice(match: Match) -> Replacement:
    return match["x"] if _is_static(match["x"]) and same_shape(match["x"], match.root.outputs[0]) else None


def _slice(prefix: str, shared: bool, source: Op | str) -> Op:
    names = [f"{prefix}_{name}" for name in ("starts", "ends", "axes")]
    steps = Const(f"{prefix}_steps", optional=True)
    return Op("Slice", source, *(Const(name) for name in names), steps, shared=shared)


def _merge_slices(match: Match) -> Replacement:
    """Two slices of different axes are one slice of both."""
    axes = [match.array(f"{which}_axes").tolist() for which in ("inner", "outer")]
    flat = axes[0] + axes[1]
    if len(set(flat)) != len(flat) or any(axis < 0 for axis in flat):
        return Refuse("both slice the same axis, or count axes from the end")
    merged = [
        np.concatenate(
            [
                _part(match, which, name, len(each))
                for which, each in zip(("inner", "outer"), axes, strict=True)
            ]
        )
        for name in ("starts", "ends", "axes", "steps")
    ]
    return match.op("Slice", [match["x"], *merged])


def _part(match: Match, which: str, name: str, size: int) -> np.ndarray:
    found = match.get(f"{which}_{name}")
    return np.ones(size, np.int64) if found is None else match.array(f"{which}_{name}").astype(np.int64)


def _drop_pad(match: Match) -> Replacement:
    pads = attribute(match.root, "pads")
    if pads is None and len(match.root.inputs) > 1:
        pads = edit.constant(match.root.inputs[1])
    return match["x"] if pads is not None and not np.any(pads) else None


def _drop_tile(match: Match) -> Replacement:
    return match["x"] if np.all(match.array("repeats") == 1) else None


def _single_concat(match: Match) -> Replacement:
    inputs = [value for value in match.root.inputs if value is not None]
    return inputs[0] if len(inputs) == 1 else None


def _merge_concats(match: Match) -> Replacement:
    """Operands that are themselves a concatenation along the same axis, used nowhere else, are listed directly."""
    axis = attribute(match.root, "axis")
    operands = [part for value in match.root.inputs for part in _parts(value, axis)]
    return None if operands == list(match.root.inputs) else match.op("Concat", operands, axis=axis)


def _parts(value: ir.Value | None, axis: int) -> Sequence[ir.Value | None]:
    producer = None if value is None else value.producer()
    if producer is None or value is None or producer.op_type != "Concat" or producer.domain != "":
        return [value]
    private = len(value.uses()) == 1 and not value.is_graph_output()
    return producer.inputs if private and attribute(producer, "axis") == axis else [value]


def _concat_of_split(match: Match) -> Replacement:
    """Concat of all outputs of a Split, in order and along the same axis."""
    first = match.root.inputs[0]
    split = None if first is None else first.producer()
    if split is None or split.op_type != "Split" or split.domain != "" or split.inputs[0] is None:
        return None
    if list(split.outputs) != list(match.root.inputs):
        return None
    return split.inputs[0] if _axis(split) == _axis(match.root) else None


def _axis(node: ir.Node) -> int:
    """The axis counted from the front where the rank is known."""
    axis: int = attribute(node, "axis")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis % len(shape) if shape is not None and len(shape) > 0 else axis


def _single_split(match: Match) -> Replacement:
    return match["x"] if len(match.root.outputs) == 1 else None


BROADCASTING = (
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Less",
        "Greater",
        "LessOrEqual",
        "GreaterOrEqual",
    ),
    *("Where", "Max", "Min", "Pow", "Mod"),
)


def _drop_expanded_operand(match: Match) -> Replacement:
    """An operand that broadcasting expands anyway need not be expanded first."""
    result = match.root.outputs[0]
    inputs = [_before_expand(value) for value in match.root.inputs]
    if inputs == list(match.root.inputs) or not _broadcasts_to(inputs, result):
        return None
    return match.op(match.root.op_type, inputs, attributes_of=match.root)


def _before_expand(value: ir.Value | None) -> ir.Value | None:
    producer = None if value is None else value.producer()
    is_expand = producer is not None and producer.op_type == "Expand" and producer.domain == ""
    return producer.inputs[0] if producer is not None and is_expand else value


def _broadcasts_to(values: Sequence[ir.Value | None], result: ir.Value) -> bool:
    shapes = [value.shape for value in values if value is not None]
    if not _is_static(result) or any(shape is None or not shape.is_static() for shape in shapes):
        return False
    found = np.broadcast_shapes(*(shape.numpy() for shape in shapes if shape is not None))
    return found == result.shape.numpy()  # type: ignore[union-attr]


SLICE = Op("Slice", "x", "starts", "ends", Var("axes", optional=True), Const("steps", optional=True))

RULES = [
    Rule("no-op reshape", Op(RESHAPES, "x", ...), _if_same_shape),
    Rule("no-op expand", Op("Expand", "x", "shape"), _if_same_shape),
    Rule("no-op transpose", Op("Transpose", "x"), _drop_transpose),
    Rule("no-op slice", SLICE, _drop_slice),
    Rule("no-op slice", Op("Slice", "x"), _drop_old_slice),
    Rule("no-op pad", Op("Pad", "x", ...), _drop_pad),
    Rule("no-op tile", Op("Tile", "x", Const("repeats")), _drop_tile),
    Rule("concat of one", Op("Concat", ...), _single_concat),
    Rule("split into one", Op("Split", "x", ...), _single_split),
    Rule("concat of a split", Op("Concat", ...), _concat_of_split),
    Rule(
        "squeeze of unsqueeze", Op("Squeeze", Op("Unsqueeze", "x", ..., shared=True), ...), _cancel_unsqueeze
    ),
    Rule("reshape chain", Op(RESHAPES, INNER_RESHAPE, ...), _merge_reshapes),
    Rule("transpose chain", Op("Transpose", INNER_TRANSPOSE), _merge_transposes),
    Rule("transpose of ones", Op("Transpose", "x"), _transpose_to_reshape),
    Rule("slice chain", _slice("outer", True, _slice("inner", False, "x")), _merge_slices),
    Rule("concat chain", Op("Concat", ...), _merge_concats),
    Rule("expand before broadcast", Op(BROADCASTING, ...), _drop_expanded_operand),
]

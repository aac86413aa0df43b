"""Transposes meet and vanish: through operators that work in any layout, a pair that is apart cancels as well.

Exporters of channels-last frameworks put one in front of every convolution and one behind it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.evaluate import axes_of
from graphopt.rewriting.pattern import Op
from graphopt.rewriting.rewrite import Match, Replacement, Rule

UNARY = (
    *("Abs", "Cast", "Ceil", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
    *("Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
)
"""Elementwise in their first input; further inputs are scalars."""

BINARY = (
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "Less",
    "Max",
    "Min",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
)
"""Elementwise in all inputs, with broadcasting."""

DEEPEST = 12
"""Operators between two transposes at most."""

SMALL = 1 << 16
"""Elements of the largest constant that is transposed for this."""

Perm = tuple[int, ...]


def permutation(node: ir.Node) -> Perm | None:
    """The permutation of a Transpose, written out; None if it is the default one of an unknown rank."""
    perm = attribute(node, "perm")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if perm is None and shape is not None:
        return tuple(reversed(range(len(shape))))
    return None if perm is None else tuple(perm)


def _cancel(match: Match) -> Replacement:
    """The operand of the transpose computed in the other layout all along, if that takes no transpose anywhere."""
    perm = permutation(match.root)
    producer = match["x"].producer()
    if perm is None or producer is None or producer.op_type == "Transpose":
        return None
    return _in_layout(match, match["x"], perm, DEEPEST)


def _in_layout(match: Match, value: ir.Value | None, perm: Perm, depth: int) -> ir.Value | None:
    """What transposing ``value`` would give, without a new Transpose; None if that is not possible."""
    if value is None or depth == 0:
        return None
    if edit.tensor(value) is not None:
        return _constant_in_layout(match, value, perm)
    node = value.producer()
    if node is None or node.domain != "":
        return None
    if node.op_type == "Transpose":
        inner = permutation(node)
        undone = (
            inner is not None
            and len(inner) == len(perm)
            and all(inner[axis] == i for i, axis in enumerate(perm))
        )
        return node.inputs[0] if undone else None
    rebuild = _REBUILD.get(node.op_type)
    if rebuild is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return rebuild(match, node, perm, depth - 1)


def _constant_in_layout(match: Match, value: ir.Value, perm: Perm) -> ir.Value | None:
    array = edit.constant(value)
    if array is None or array.size > SMALL or array.ndim > len(perm):
        return None
    if array.size == 1 and array.ndim == 0:
        return value
    full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return match.constant(np.ascontiguousarray(full.transpose(perm)))


def _unary(match: Match, node: ir.Node, perm: Perm, depth: int) -> ir.Value | None:
    source = _in_layout(match, node.inputs[0], perm, depth)
    return None if source is None else _again(match, node, [source, *node.inputs[1:]], perm)


def _elementwise(match: Match, node: ir.Node, perm: Perm, depth: int) -> ir.Value | None:
    if not all(_has_rank(value, len(perm)) for value in node.inputs):
        return None
    operands = [_in_layout(match, value, perm, depth) for value in node.inputs]
    return None if None in operands else _again(match, node, operands, perm)


def _has_rank(value: ir.Value | None, rank: int) -> bool:
    """Constants are brought to the rank; anything else must have it."""
    if value is None or edit.tensor(value) is not None:
        return value is not None
    return value.shape is not None and len(value.shape) == rank


def _concat(match: Match, node: ir.Node, perm: Perm, depth: int) -> ir.Value | None:
    operands = [_in_layout(match, value, perm, depth) for value in node.inputs]
    if None in operands:
        return None
    return _again(match, node, operands, perm, axis=perm.index(attribute(node, "axis") % len(perm)))


def _pad(match: Match, node: ir.Node, perm: Perm, depth: int) -> ir.Value | None:
    """Pads are an attribute before opset 11, an input after; axes among the inputs are left alone."""
    rank = len(perm)
    given = attribute(node, "pads")
    pads = edit.constant(node.inputs[1]) if given is None and len(node.inputs) > 1 else given
    if pads is None or len(pads) != 2 * rank or len(node.inputs) > 3:
        return None
    source = _in_layout(match, node.inputs[0], perm, depth)
    if source is None:
        return None
    moved = np.array([pads[axis + half] for half in (0, rank) for axis in perm], np.int64)
    if given is not None:
        return _again(match, node, [source], perm, pads=moved.tolist())
    return _again(match, node, [source, match.constant(moved), *node.inputs[2:]], perm)


def _again(
    match: Match, node: ir.Node, inputs: Sequence[ir.Value | None], perm: Perm, **changed: Any
) -> ir.Value:
    """The same operator on ``inputs``, its result in the layout of ``perm``."""
    result = match.op(node.op_type, inputs, attributes_of=node, **changed)
    old = node.outputs[0]
    result.type = old.type
    if old.shape is not None and len(old.shape) == len(perm):
        result.shape = ir.Shape(old.shape[axis] for axis in perm)
    return result


_REBUILD: dict[str, Callable[[Match, ir.Node, Perm, int], ir.Value | None]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _elementwise),
    "Concat": _concat,
    "Pad": _pad,
}


def _join(match: Match) -> Replacement:
    """One transpose behind an operator instead of the same one in front of each operand."""
    producers = [_private_transpose(value) for value in match.root.inputs]
    perms = {None if node is None else permutation(node) for node in producers}
    perm = next(iter(perms))
    if len(set(producers)) < 2 or len(perms) != 1 or perm is None:
        return None
    shapes = [node.inputs[0].shape for node in producers if node is not None and node.inputs[0] is not None]
    if any(shape is None or len(shape) != len(perm) for shape in shapes):
        return None
    sources = [node.inputs[0] for node in producers if node is not None]
    changed = {}
    if match.root.op_type == "Concat":
        changed["axis"] = perm[attribute(match.root, "axis") % len(perm)]
    inverse = tuple(int(axis) for axis in np.argsort(perm))
    return match.op("Transpose", [_again(match, match.root, sources, inverse, **changed)], perm=perm)


def _private_transpose(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    if node is None or value is None or node.op_type != "Transpose" or node.domain != "":
        return None
    return node if len(value.uses()) == 1 and not value.is_graph_output() else None


REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
TRANSPOSE = Op("Transpose", "x")


def _reduce(match: Match) -> Replacement:
    """A reduction without keepdims over whatever the transpose moved: what is left is in order anyway."""
    perm = permutation(match.node(TRANSPOSE))
    axes = axes_of(match.root, [edit.constant(value) for value in match.root.inputs], 1)
    if perm is None or not axes or attribute(match.root, "keepdims"):
        return None
    reduced = {perm[axis % len(perm)] for axis in axes}
    kept = [axis for axis in perm if axis not in reduced]
    if kept != sorted(kept):
        return None
    if attribute(match.root, "axes") is not None:
        return match.op(match.root.op_type, [match["x"]], attributes_of=match.root, axes=sorted(reduced))
    return match.op(match.root.op_type, [match["x"], np.array(sorted(reduced))], attributes_of=match.root)


RULES = [
    Rule("transposes that cancel", Op("Transpose", "x"), _cancel),
    Rule("transposed operands", Op(("Concat", *BINARY), ...), _join),
    Rule("transpose before a reduction", Op(REDUCTIONS, TRANSPOSE, ...), _reduce),
]

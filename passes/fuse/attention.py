"""Scaled dot-product attention written as MatMul, scale, mask, Softmax, MatMul becomes Attention (4-D form)."""

from dataclasses import dataclass

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.fuse.emit import emit
from graphopt.passes.fuse.terms import Product, coefficient_between, scalar
from graphopt.rewriting.pattern import Either, Op, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _is_over_last_axis(node: ir.Node) -> bool:
    shape = node.outputs[0].shape
    axis: int = attribute(node, "axis")
    return shape is not None and axis in (-1, len(shape) - 1)


SCORES = Op("MatMul", Var("q", where=lambda value: value.dtype in FLOATS), "k")
SCALED = Product(SCORES, coefficient=None)
MASKED = Op("Add", SCALED, "mask")
SOFTMAX = Op("Softmax", Either(MASKED, SCALED), where=_is_over_last_axis)
ATTENTION = Op("MatMul", SOFTMAX, "v")


@dataclass(frozen=True)
class Scaled:
    """A value and the number that it is to be multiplied by."""

    value: ir.Value
    factor: float


def _attention(match: Match) -> Replacement:
    scores, query, keys = match.node(SCORES).outputs[0], _unscaled(match["q"]), _unscaled(match["k"])
    refusal = _why_not(match, scores)
    if refusal is not None:
        return refusal
    transpose = keys.value.producer()
    if transpose is None or not _transposes_keys(transpose):
        return Refuse("the keys are not transposed")
    heads = _grouped(transpose.inputs[0], match["v"]) if _perm(transpose) == (0, 1, 3, 2) else None
    key, value = heads or (_untransposed(match, transpose), match["v"])
    scale = query.factor * keys.factor * coefficient_between(_scaled_scores(match), scores)
    return emit(match, "Attention", [query.value, key, value, *_mask(match)], scale=scale)


def _mask(match: Match) -> list[ir.Value]:
    mask = match.get("mask")
    return [] if mask is None else [mask]


def _scaled_scores(match: Match) -> ir.Value:
    """What the mask is added to, or else the input of the Softmax."""
    inside = match.node(SOFTMAX).inputs[0]
    assert inside is not None
    if match.get("mask") is None:
        return inside
    operands = [
        value for value in match.node(MASKED).inputs if value is not None and value is not match["mask"]
    ]
    return operands[0]


def _unscaled(value: ir.Value) -> Scaled:
    """Takes one multiplication by a number off, if nobody else needs its result."""
    producer = value.producer()
    if producer is None or producer.domain != "" or len(value.uses()) > 1 or value.is_graph_output():
        return Scaled(value, 1.0)
    for operand, other in ((0, 1), (1, 0))[: {"Mul": 2, "Div": 1}.get(producer.op_type, 0)]:
        source, number = producer.inputs[operand], scalar(producer.inputs[other])
        if source is not None and number and _rank(source) == _rank(value):
            return Scaled(source, number if producer.op_type == "Mul" else 1 / number)
    return Scaled(value, 1.0)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _why_not(match: Match, scores: ir.Value) -> Refuse | None:
    """Attention neither broadcasts heads nor lets the mask enlarge the scores."""
    query, key, value = (match[name] for name in ("q", "k", "v"))
    if any(_rank(each) != 4 for each in (query, key, value, scores)):
        return Refuse("it is not four-dimensional")
    if not (_same_heads(query, key) and _same_heads(query, value)):
        return Refuse("batch or heads are broadcast, or unknown")
    mask = match.get("mask")
    if mask is not None and not _is_mask(mask, scores):
        return Refuse("the mask does not surely broadcast to the scores")
    return None


def _same_heads(left: ir.Value, right: ir.Value) -> bool:
    return all(_same(left, right, axis) for axis in (0, 1))


def _same(left: ir.Value, right: ir.Value, axis: int) -> bool:
    """Whether a dimension is known to be the same, by number or by name."""
    assert left.shape is not None
    assert right.shape is not None
    one, other = left.shape[axis], right.shape[axis]
    return one == other and (isinstance(one, int) or one.value is not None)


def _is_mask(mask: ir.Value, scores: ir.Value) -> bool:
    if mask.dtype != scores.dtype or mask.shape is None or not 2 <= len(mask.shape) <= 4:
        return False
    return all(mask.shape[-axis] == 1 or _same(mask, scores, -axis) for axis in range(1, len(mask.shape) + 1))


def _perm(node: ir.Node) -> tuple[int, ...] | None:
    perm: tuple[int, ...] | None = attribute(node, "perm")
    return perm


def _transposes_keys(node: ir.Node) -> bool:
    """Whether the keys exist, up to a transpose that gives them in rows, in front of ``node``."""
    return node.op_type == "Transpose" and node.domain == "" and _perm(node) in ((0, 1, 3, 2), (0, 2, 3, 1))


def _untransposed(match: Match, transpose: ir.Node) -> ir.Value | None:
    """The keys as [batch, heads, sequence, size]."""
    source = transpose.inputs[0]
    if source is None or _perm(transpose) == (0, 1, 3, 2):
        return source
    keys = match.op("Transpose", [source], perm=(0, 2, 1, 3), like=transpose.outputs[0])
    if keys.shape is not None:
        batch, heads, size, sequence = keys.shape.dims
        keys.shape = ir.Shape([batch, heads, sequence, size])
    return keys


def _grouped(keys: ir.Value | None, values: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Keys and values before their heads were repeated, if both were repeated alike."""
    key, value = _before_repetition(keys), _before_repetition(values)
    if key is None or value is None or not _same_heads(key, value):
        return None
    return key, value


def _before_repetition(value: ir.Value | None) -> ir.Value | None:
    """The source of Unsqueeze(2), Expand, Reshape: [b, h, s, d] to [b, h, r, s, d] to [b, h r, s, d]."""
    reshape = _producer(value, "Reshape")
    expand = _source_node(reshape, "Expand")
    unsqueeze = _source_node(expand, "Unsqueeze")
    if value is None or expand is None or unsqueeze is None:
        return None
    source, inserted, wide = unsqueeze.inputs[0], unsqueeze.outputs[0], expand.outputs[0]
    if source is None or _rank(source) != 4 or _rank(inserted) != 5 or _rank(wide) != 5 or _rank(value) != 4:
        return None
    heads, one, repeats = source.shape[1], inserted.shape[2], wide.shape[2]  # type: ignore[index]
    if one != 1 or not isinstance(heads, int) or not isinstance(repeats, int):
        return None
    keeps_rest = all(_same(inserted, wide, axis) for axis in (0, 1, 3, 4))
    joins = value.shape[1] == heads * repeats and _same(source, value, 3) and _same(source, value, 2)  # type: ignore[index]
    return source if keeps_rest and joins and inserted.shape[1] == heads else None  # type: ignore[index]


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _source_node(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """The node that computes the first input of ``node``, if it is an ``op_type``."""
    return None if node is None else _producer(node.inputs[0], op_type)


RULES = [Rule("attention", ATTENTION, _attention)]

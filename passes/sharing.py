"""Computes equal things once: common subexpressions and initializers with equal content."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pattern import COMMUTATIVE
from graphopt.rewriting.pipeline import Outcome
from graphopt.rewriting.rewrite import is_removable

RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Two of these may differ although their inputs are equal. (Dropout that drops nothing is removed elsewhere.)"""

SAMPLES = 64
"""Elements compared before two initializers of equal type are compared in full."""


def share_subexpressions(model: ir.Model) -> Outcome:
    """Replaces a node by an equal one before it, in the same graph or in a graph around it."""
    merged = _share_in(model.graph, {})
    return Outcome(merged > 0, Counter({"common subexpression": merged} if merged else {}))


def _share_in(graph: ir.Graph, outer: dict[Hashable, ir.Node]) -> int:
    seen = dict(outer)
    merged = 0
    for node in list(graph):
        inner = list(edit.subgraphs(node))
        merged += sum(_share_in(each, seen) for each in inner)
        if inner or not _is_shareable(node):
            continue
        first = seen.setdefault(_key(node), node)
        if first is not node:
            edit.replace_outputs(
                node, [_or_none(new, old) for new, old in zip(first.outputs, node.outputs, strict=True)]
            )
            merged += 1
    return merged


def _or_none(new: ir.Value, old: ir.Value) -> ir.Value | None:
    return None if edit.is_unused(old) else new


def _is_shareable(node: ir.Node) -> bool:
    return node.op_type not in RANDOM and node.op_type != "Identity" and is_removable(node)


def _key(node: ir.Node) -> Hashable:
    inputs = [id(value) for value in node.inputs]
    if node.op_type in COMMUTATIVE and node.domain == "":
        inputs.sort()
    attributes = sorted((name, attr.type.value, _content(attr)) for name, attr in node.attributes.items())
    return (node.domain, node.op_type, node.overload, len(node.outputs), tuple(inputs), tuple(attributes))


def _content(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape} {tensor.numpy().tolist()!r}"
    return repr(attribute.value)


def share_initializers(model: ir.Model) -> Outcome:
    """Keeps one of several initializers with equal type and content; those that are outputs or inputs stay."""
    outer = _shareable(model.graph)
    merged = _merge_equal(outer)
    for graph in model.graph.subgraphs():
        merged += _merge_equal([*outer, *_shareable(graph)])
    return Outcome(merged > 0, Counter({"equal initializers": merged} if merged else {}))


def _shareable(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.initializers.values() if _may_be_shared(value)]


def _may_be_shared(value: ir.Value) -> bool:
    tensor = edit.tensor(value)
    return tensor is not None and not value.is_graph_output() and tensor.dtype != ir.DataType.STRING


def _merge_equal(values: Iterable[ir.Value]) -> int:
    groups: dict[Hashable, list[ir.Value]] = defaultdict(list)
    merged = 0
    for value in _with_a_peer(values):
        array = edit.constant(value)
        assert array is not None
        kept = groups[_signature(value, array)]
        first = next((each for each in kept if _equal(edit.constant(each), array)), None)
        if first is None:
            kept.append(value)
            continue
        value.replace_all_uses_with(first)
        edit.drop_initializer(value)
        merged += 1
    return merged


def _with_a_peer(values: Iterable[ir.Value]) -> list[ir.Value]:
    """Those that are not the only one of their type and shape; the others need not be read."""
    groups: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in values:
        tensor = edit.tensor(value)
        if tensor is not None:
            groups[tensor.dtype, tuple(tensor.shape)].append(value)
    return [value for group in groups.values() if len(group) > 1 for value in group]


def _signature(value: ir.Value, array: np.ndarray) -> Hashable:
    step = max(array.size // SAMPLES, 1)
    return (value.dtype, array.shape, array.reshape(-1)[::step].tobytes())


def _equal(left: np.ndarray | None, right: np.ndarray) -> bool:
    """Bit for bit: 0.0 and -0.0 differ, a NaN equals itself."""
    assert left is not None
    return left is right or bool(np.array_equal(_bytes(left), _bytes(right)))


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)

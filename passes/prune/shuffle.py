"""Channel shuffles (Reshape, Transpose, Reshape) as Gather while channels are removed, since what is left need not be a rectangle.

Zhang et al., "ShuffleNet", 2017.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.dead_code import remove_dead_code
from graphopt.passes.prune.flow import Dims, dims, rank

MARK = "graphopt.shuffle"
"""In `meta` of a Gather that was a shuffle."""


def open_shuffles(model: ir.Model) -> int:
    """Replace shuffles of an axis by Gather, in place. Gives their number."""
    names, found = edit.Names(model), 0
    for node in list(model.graph):
        permuted = _permutation(node)
        if permuted is None:
            continue
        source, axis, places = permuted
        indices = edit.add_constant(model.graph, places, names.fresh(f"{node.name}_places"))
        gathered = ir.node("Gather", [source, indices], {"axis": axis}, name=node.name)
        gathered.meta[MARK] = True
        model.graph.insert_before(node, gathered)
        edit.replace_outputs(node, gathered.outputs)
        found += 1
    remove_dead_code(model)
    return found


def close_shuffles(model: ir.Model) -> int:
    """Write shuffles again where they can be, in place. Gives their number."""
    names, found = edit.Names(model), 0
    for node in list(model.graph):
        groups = _groups(node) if node.meta.get(MARK) else None
        if groups is not None:
            _write_shuffle(model.graph, node, groups, names)
            found += 1
    return found


def _permutation(last: ir.Node) -> tuple[ir.Value, int, NDArray[np.int64]] | None:
    """What a Reshape gives is what an axis of a value gives in another order; None if it is something else."""
    chain = _chain(last)
    if chain is None:
        return None
    first, turn, _ = chain
    shapes = _numbers(dims(first.inputs[0]), dims(first.outputs[0]), dims(last.outputs[0]))
    if shapes is None or shapes[0] != shapes[2] or math.prod(shapes[0]) > LARGEST:
        return None
    plain = np.arange(math.prod(shapes[0])).reshape(shapes[0])
    moved = plain.reshape(shapes[1]).transpose(attribute(turn, "perm")).reshape(shapes[2])
    source = first.inputs[0]
    assert source is not None
    for axis, size in enumerate(shapes[0]):
        corner = tuple(slice(None) if each == axis else 0 for each in range(plain.ndim))
        places = moved[corner] // max(math.prod(shapes[0][axis + 1 :]), 1) % size
        if (places != np.arange(size)).any() and np.array_equal(np.take(plain, places, axis), moved):
            return source, axis, places.astype(np.int64)
    return None


LARGEST = 1 << 24
"""Elements of the largest value that is tried."""


def _chain(last: ir.Node) -> tuple[ir.Node, ir.Node, ir.Node] | None:
    """Reshape, Transpose, Reshape, each of which only the next one reads."""
    turn = _only_producer(last, "Reshape", "Transpose")
    first = None if turn is None else _only_producer(turn, "Transpose", "Reshape")
    return None if turn is None or first is None else (first, turn, last)


def _only_producer(node: ir.Node, own: str, wanted: str) -> ir.Node | None:
    value = node.inputs[0] if (node.domain, node.op_type) == ("", own) else None
    producer = None if value is None else value.producer()
    if value is None or producer is None or (producer.domain, producer.op_type) != ("", wanted):
        return None
    return producer if len(value.uses()) == 1 and not value.is_graph_output() else None


def _numbers(*shapes: Dims | None) -> list[list[int]] | None:
    """Sizes, with a number of its own for each name of a free dimension; None for one without a name."""
    free = count(3, 2)
    numbers: dict[str, int] = {}
    found = []
    for shape in shapes:
        if shape is None or None in shape:
            return None
        for size in shape:
            if isinstance(size, str) and size not in numbers:
                numbers[size] = next(free)
        found.append([size if isinstance(size, int) else numbers[size or ""] for size in shape])
    return found if len({math.prod(each) for each in found}) == 1 else None


def _groups(node: ir.Node) -> int | None:
    """The groups of the shuffle that a Gather is; None if it is none, or its image has free sizes beside the first."""
    places, sizes = edit.constant(node.inputs[1]), dims(node.inputs[0])
    if places is None or sizes is None or not all(isinstance(size, int) for size in sizes[1:]):
        return None
    if attribute(node, "axis") != 1 or rank(node.inputs[0]) != 4:
        return None
    groups = len(places) // int(places[1]) if len(places) > 1 and places[1] > 1 else 0
    if not groups or len(places) % groups:
        return None
    return (
        groups if np.array_equal(places, np.arange(len(places)).reshape(groups, -1).T.reshape(-1)) else None
    )


def _write_shuffle(graph: ir.Graph, node: ir.Node, groups: int, names: edit.Names) -> None:
    channels, *image = [int(size) for size in (dims(node.inputs[0]) or [])[1:] if isinstance(size, int)]
    shapes = [[0, groups, channels // groups, *image], [0, channels, *image]]
    constants = [
        edit.add_constant(graph, np.array(shape, np.int64), names.fresh(f"{node.name}_shape"))
        for shape in shapes
    ]
    split = ir.node("Reshape", [node.inputs[0], constants[0]])
    turned = ir.node("Transpose", [split.outputs[0]], {"perm": [0, 2, 1, 3, 4]})
    joined = ir.node("Reshape", [turned.outputs[0], constants[1]], name=node.name)
    for each in (split, turned, joined):
        graph.insert_before(node, each)
    edit.replace_outputs(node, joined.outputs)

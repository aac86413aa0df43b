"""Which intermediate values of a student should be like which of its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphopt.errors import GraphoptError

SPATIAL = 3
"""Axes from which on a value has channels and places; the loss compares places where numbers of channels differ."""

MOST = 4
"""Pairs that are matched: evenly spread over the depth."""

BLOCK_ENDS = frozenset({"Add", "Concat", "LayerNormalization"})
"""Operators that end a block, if there are any; otherwise activations do."""

ACTIVATIONS = frozenset({"Clip", "HardSwish", "LeakyRelu", "PRelu", "Relu"})


def match_features(student: ir.Model, teacher: ir.Model, chosen: Mapping[str, str] | None) -> dict[str, str]:
    """Values of the student -> values of the teacher: those chosen, or with None some that have the same name in both.

    Raises GraphoptError for a value that does not exist, and where nothing matches.
    """
    mine, others = _values(student), _values(teacher)
    if chosen is not None:
        _require("student", mine, chosen)
        _require("teacher", others, chosen.values())
        return dict(chosen)
    found = _spread(shared_values(student, teacher))
    if not found:
        raise GraphoptError(
            "no value inside the student has the name and the places of one of the teacher; give --features NAME=NAME"
        )
    return {name: name for name in found}


def shared_values(student: ir.Model, teacher: ir.Model) -> list[str]:
    """Ends of blocks, or results of activations, that have the same name and the same places in both, in topological order."""
    mine, others = _values(student), _values(teacher)
    common = [name for name, value in mine.items() if name in others and _fit(value, others[name])]
    ends = [name for name in common if _operator(mine[name]) in BLOCK_ENDS]
    return ends or [name for name in common if _operator(mine[name]) in ACTIVATIONS]


def _values(model: ir.Model) -> dict[str, ir.Value]:
    """What nodes of the main graph compute, outputs of the graph left out."""
    computed = (value for node in model.graph for value in node.outputs)
    return {value.name: value for value in computed if value.name and not value.is_graph_output()}


def _require(whose: str, values: Mapping[str, ir.Value], names: object) -> None:
    missing = [name for name in names if name not in values]  # type: ignore[attr-defined]
    if missing:
        raise GraphoptError(f"nothing inside the {whose} is called {', '.join(map(repr, missing))}")


def _fit(mine: ir.Value, other: ir.Value) -> bool:
    """Whether both have the same axes, but for the channels of a value with places."""
    if mine.shape is None or other.shape is None or len(mine.shape) != len(other.shape):
        return False
    first, second = list(mine.shape), list(other.shape)
    spatial = len(first) >= SPATIAL
    return first[2:] == second[2:] if spatial else first[1:] == second[1:]


def _operator(value: ir.Value) -> str:
    node = value.producer()
    return "" if node is None else node.op_type


def _spread(names: list[str]) -> list[str]:
    """At most `MOST`, the last among them."""
    count = min(MOST, len(names))
    return [names[(number + 1) * len(names) // count - 1] for number in range(count)]

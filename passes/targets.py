"""Constant shape inputs for Reshape and Expand whose dimensions are partly free."""

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.symbolic import Entry, Symbol, Unknown, entries


def static_target(node: ir.Node, wanted: np.ndarray) -> np.ndarray | None:
    """A constant that means the same as ``wanted`` as second input of ``node``, without allowzero; None if there is none."""
    rule = _RULES.get(node.op_type)
    source = entries(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    if rule is None or source is None or wanted.ndim != 1:
        return None
    found = rule(node, source, wanted.tolist())
    return None if found is None else np.array(found, dtype=np.int64)


def _reshape(node: ir.Node, source: list[Entry], wanted: list[object]) -> list[int] | None:
    """0 copies the dimension at the same place, -1 stands for at most one other that is not a number.

    A 0 that is meant as a size has no such form.
    """
    if attribute(node, "allowzero") and any(
        not isinstance(entry, Symbol | Unknown) and entry == 0 for entry in wanted
    ):
        return None
    result = []
    for axis, entry in enumerate(wanted):
        if axis < len(source) and isinstance(entry, Symbol) and source[axis] == entry:
            result.append(0)
        elif isinstance(entry, Symbol | Unknown):
            result.append(-1)
        else:
            result.append(int(entry))  # type: ignore[call-overload]
    if result.count(-1) > 1 or (-1 in result and _may_be_empty(source, result)):
        return None
    return result


def _may_be_empty(source: list[Entry], result: list[int]) -> bool:
    """Whether -1 could be ambiguous: with a dimension of 0 elsewhere it cannot be derived."""
    return any(dim == 0 for dim in source) or any(
        entry == 0 and source[axis] == 0 for axis, entry in enumerate(result)
    )


def _expand(node: ir.Node, source: list[Entry], wanted: list[object]) -> list[int] | None:
    """1 keeps a dimension of the source, which is what expanding to its own size does."""
    offset = len(source) - len(wanted)
    result = []
    for axis, entry in enumerate(wanted):
        own = source[axis + offset] if axis + offset >= 0 else None
        if isinstance(entry, Symbol) and own is not None and own == entry:
            result.append(1)
        elif isinstance(entry, Symbol | Unknown):
            return None
        else:
            result.append(int(entry))  # type: ignore[call-overload]
    return result


_RULES = {"Reshape": _reshape, "Expand": _expand}

"""A teacher with the names of its student: same inputs, same outputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.errors import GraphoptError
from graphopt.model import edit


def paired(teacher: ir.Model, student: ir.Model) -> ir.Model:
    """A copy of `teacher` whose inputs and outputs are called as those of `student`, both in normal form.

    Inputs and outputs belong together by name, else by order. Where it leaves open how many samples it takes, it takes as many as
    the student. Raises GraphoptError where their number or shapes differ.
    """
    copy = teacher.clone()
    for what, mine, others in (
        ("input", student.graph.inputs, copy.graph.inputs),
        ("output", student.graph.outputs, copy.graph.outputs),
    ):
        for value, other in _pairs(what, list(mine), list(others)):
            _require_alike(what, value, other)
            _rename(copy, other, value.name or "")
    for value, other in zip(student.graph.inputs, copy.graph.inputs, strict=True):
        _fix_samples(value, other)
    return copy


def _pairs(
    what: str, mine: Sequence[ir.Value], others: Sequence[ir.Value]
) -> list[tuple[ir.Value, ir.Value]]:
    if len(mine) != len(others):
        raise GraphoptError(f"the student has {len(mine)} {what}(s), the teacher has {len(others)}")
    by_name = {other.name: other for other in others}
    if all(value.name in by_name for value in mine):
        return [(value, by_name[value.name]) for value in mine]
    return list(zip(mine, others, strict=True))


def _require_alike(what: str, mine: ir.Value, other: ir.Value) -> None:
    """Sizes of the first axis may differ: they are samples."""
    if mine.shape is None or other.shape is None:
        return
    sizes = [
        [dim if isinstance(dim, int) else None for dim in shape][1:] for shape in (mine.shape, other.shape)
    ]
    fixed = zip(*sizes, strict=False)
    differ = any(a != b for a, b in fixed if a is not None and b is not None)
    if len(mine.shape) != len(other.shape) or differ or mine.dtype != other.dtype:
        raise GraphoptError(
            f"the student's {what} {mine.name!r} is {_described(mine)}, the teacher's {other.name!r} is {_described(other)}"
        )


def _fix_samples(mine: ir.Value, other: ir.Value) -> None:
    if not mine.shape or not other.shape:
        return
    if isinstance(mine.shape[0], int) and not isinstance(other.shape[0], int):
        other.shape = ir.Shape([mine.shape[0], *list(other.shape)[1:]])


def _described(value: ir.Value) -> str:
    name = "" if value.dtype is None else value.dtype.name.lower()
    return f"{name} {'' if value.shape is None else list(map(str, value.shape))}".replace("'", "")


def _rename(model: ir.Model, value: ir.Value, name: str) -> None:
    """Gives a value a name; who has it gets another one."""
    if value.name == name:
        return
    taken = (each for node in model.graph for each in node.outputs)
    for other in (*model.graph.inputs, *taken, *list(model.graph.initializers.values())):
        if other.name == name:
            other.name = edit.Names(model).fresh(name)
    value.name = name

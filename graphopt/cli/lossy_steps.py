"""Changes that give up accuracy before a model is compiled, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from graphopt.cli.report import Table

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """`run` changes a model and tells about it: a result with `model` and `warnings`, of which `summary` is a line and `tables` more.

    `title` says what was done.
    """

    title: str
    run: Callable[[Path | ir.Model, Progress], Any]
    summary: Callable[[Any], str]
    tables: Callable[[Any], Sequence[Table]]


@dataclass(frozen=True)
class Taken:
    """A model after steps, and what there is to tell about them."""

    model: Path | ir.Model
    notices: list[str]
    tables: list[Table]


def take(steps: Sequence[Step | None], model: Path | ir.Model, progress: Progress) -> Taken:
    """The steps that are not None, in order. Raises GraphoptError."""
    taken = Taken(model, [], [])
    for step in steps:
        if step is not None:
            done = step.run(taken.model, progress)
            taken.notices.extend([*done.warnings, f"{step.title}: {step.summary(done)}"])
            taken.tables.extend(step.tables(done))
            taken = Taken(done.model, taken.notices, taken.tables)
    return taken

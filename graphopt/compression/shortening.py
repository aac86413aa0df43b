"""What `graphopt prune --layers` does: whole layers and blocks go, those whose absence changes the outputs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from graphopt.accuracy.evaluation import Judge, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.compression.pruner import matches, prepare, require_matches
from graphopt.compression.pruning import SAMPLES, Step, require_runs
from graphopt.compression.reconstruction import reconstruct
from graphopt.compression.recovery import Lesson, Recovery, require_recoverable
from graphopt.errors import DataError, GraphoptError, UnreachableError
from graphopt.feeds.data import Data, Dataset
from graphopt.model import infer_shapes, normalise, save, statistics
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.prune.shuffle import close_shuffles
from graphopt.passes.prune.units import Unit, find_units, remove_unit
from graphopt.rewriting.pipeline import Context

Progress = Callable[[str], None]

RANKED = 32
"""Samples, at most, on which it is measured what each layer is worth."""

TRIED = 8
"""Of the layers that were worth least when all were measured, so many are measured again after each that goes."""


@dataclass(frozen=True)
class Gone:
    """A unit that was removed, and the quality of the model's outputs without it and those before it."""

    unit: Unit
    sqnr_db: float

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**vars(self.unit), "nodes": list(self.unit.nodes), "sqnr_db": self.sqnr_db}


@dataclass(frozen=True)
class Shortening:
    """A shorter model, what went in that order, and what each step left: see `pruning.PruningResult`."""

    model: ir.Model
    layers: list[Gone]
    steps: dict[str, Step]
    warnings: list[str]
    recovery: Recovery | None = None
    importance: ClassVar[str] = "what changes the outputs least"
    latency: ClassVar[None] = None

    @property
    def gone(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of the table of what went."""
        rows = [
            [
                gone.unit.exit,
                gone.unit.entry,
                f"{len(gone.unit.nodes)}, from {gone.unit.nodes[0]}",
                f"{gone.sqnr_db:.1f}",
            ]
            for gone in self.layers
        ]
        return ["instead of", "there is", "nodes that went", "SQNR in dB by then"], rows

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "layers": [gone.to_json() for gone in self.layers],
            "steps": {name: step.to_json() for name, step in self.steps.items()},
            "warnings": self.warnings,
            "recovery": None if self.recovery is None else self.recovery.to_json(),
        }


def shorten(
    model: Model,
    layers: int,
    calib: Data | None,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    samples: int = SAMPLES,
    workers: int = 1,
    evaluate_on: Data | None = None,
    metric: str | None = None,
    protect: Sequence[str] = (),
    correct: bool = True,
    recover_minutes: float | None = None,
    seed: int = 0,
    progress: Progress = lambda stage: None,
) -> Shortening:
    """Remove this many layers or blocks, one by one, each time the one without which the outputs of the first `RANKED` samples of `calib`
    change least; what is left is fitted to what it gave before on up to `samples`.

    For other arguments see `pruning.prune`. Raises GraphoptError; nothing is written then.
    """
    if layers < 1:
        raise GraphoptError(f"{layers} layers are none; give 1 or more")
    if calib is None:
        raise GraphoptError("--layers needs --calib DATA, on which it is measured what each layer is worth")
    if metric is not None:
        find_metric(metric)
    require_recoverable(recover_minutes, True)
    source = read(model)
    normalise(source)
    original = source.clone()
    splits = Splits.of(
        original, calib, evaluate_on, samples, preprocess=preprocess, metric=metric, progress=progress
    )
    data, judge = splits.data, splits.judge
    assert data is not None
    assert judge is not None
    progress("optimize")
    prepare(source)
    steps = {"original": Step(statistics(original), judge.judge(original))}
    shorter, gone = remove_layers(source, layers, data, protect, progress)
    steps["removed"] = _step(shorter, judge)
    if correct:
        reconstruct(source, shorter, {}, data, samples, progress, seed)
        steps["corrected"] = _step(shorter, judge)
    lesson = Lesson(original, data, judge, recover_minutes, None, workers, progress)
    last = lesson.recovered(_finished(shorter), list(steps.values())[-1].evaluation)
    if last.recovery is not None:
        steps["recovered"] = Step(statistics(last.model), last.evaluation)
    require_runs(original, last.model)
    if output is not None:
        save(last.model, output)
    return Shortening(last.model, gone, steps, list(last.warnings), last.recovery)


def remove_layers(
    model: ir.Model, count: int, data: Dataset, protect: Sequence[str], progress: Progress
) -> tuple[ir.Model, list[Gone]]:
    """A copy of a prepared model without `count` units, and what went. Raises UnreachableError where there are fewer."""
    require_matches(model, protect)
    if all(output.dtype is None or not output.dtype.is_floating_point() for output in model.graph.outputs):
        raise DataError("no output of the model is of floats: it cannot be measured what layers are worth")
    judge, left = Judge(model, data, RANKED), model.clone()
    gone: list[Gone] = []
    ranking: list[Unit] = []
    for number in range(count):
        units = find_units(left, lambda node: matches(node, protect))
        if not units:
            raise _none_left(number, count, protect)
        progress(f"layer {number + 1} of {count}")
        again = [unit for unit in ranking if unit in units][:TRIED]
        found = _tried(left, again or units, judge, progress)
        ranking = [each.unit for each in found] if not again else ranking
        gone.append(found[0])
        remove_unit(left, found[0].unit)
    return left, gone


def _tried(model: ir.Model, units: Sequence[Unit], judge: Judge, progress: Progress) -> list[Gone]:
    """The units of a model, those without which its outputs change least first."""
    found = []
    for number, unit in enumerate(units):
        progress(f"candidate {number + 1} of {len(units)}")
        trial = model.clone()
        remove_unit(trial, unit)
        found.append(Gone(unit, judge.judge(trial).sqnr_db))
    return sorted(found, key=lambda each: -each.sqnr_db)


def _none_left(number: int, count: int, protect: Sequence[str]) -> UnreachableError:
    few = (
        "no layer of this model can be removed"
        if not number
        else f"only {number} of {count} layers can be removed"
    )
    protected = " that is not protected" if protect else ""
    return UnreachableError(
        f"{few}: there is no other residual branch{protected}, and no layer whose result is like a value before it"
    )


def _step(model: ir.Model, judge: Judge) -> Step:
    return Step(statistics(model), judge.judge(model))


def _finished(model: ir.Model) -> ir.Model:
    close_shuffles(model)
    Cleanup().apply(model, Context())
    infer_shapes(model)
    return model

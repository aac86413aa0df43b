"""What `graphopt sparsify` does: a model and perhaps data in, a model with zeros among its weights and a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt.accuracy.calibration import FEW, Observer, collect
from graphopt.accuracy.evaluation import Evaluation, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.compiling.presets import run_preset
from graphopt.compression.recovery import Lesson, Recovery, require_recoverable
from graphopt.errors import GraphoptError, UnreachableError
from graphopt.feeds.data import Data, Dataset
from graphopt.model import edit, normalise, save
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.sparsify.inputs import Inputs, values
from graphopt.passes.sparsify.layers import Layer, find_layers
from graphopt.passes.sparsify.patterns import find_pattern
from graphopt.passes.sparsify.recipe import MOST_ROWS, Recipe, Zeros, is_compensated, make_sparse, observers
from graphopt.rewriting.pipeline import Context

Progress = Callable[[str], None]

SAMPLES = 300


@dataclass(frozen=True)
class Sparsification:
    """A model with zeros, and where they are. `evaluation` is None where there was no data to judge it on."""

    model: ir.Model
    layers: list[Zeros]
    left_out: dict[str, str]
    warnings: list[str]
    evaluation: Evaluation | None
    recovery: Recovery | None = None

    @property
    def weights(self) -> int:
        """Of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        """Among those."""
        return sum(layer.zeros for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "weights": self.weights,
            "zeros": self.zeros,
            "layers": [{**vars(layer), "share": layer.share} for layer in self.layers],
            "left_out": self.left_out,
            "warnings": self.warnings,
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
            "recovery": None if self.recovery is None else self.recovery.to_json(),
        }


def sparsify(
    model: Model,
    calib: Data | None = None,
    output: str | Path | None = None,
    *,
    ratio: float | None = None,
    pattern: str | None = None,
    criterion: str = "magnitude",
    across: bool = False,
    compensate: bool = True,
    preprocess: str | None = None,
    samples: int = SAMPLES,
    workers: int = 1,
    exclude: Sequence[str] = (),
    evaluate_on: Data | None = None,
    metric: str | None = None,
    recover_minutes: float | None = None,
    progress: Progress = lambda stage: None,
) -> Sparsification:
    """Give the weights of convolutions and products zeros, as standard ONNX; depthwise convolutions keep theirs.

    The share `ratio` of every layer's weights becomes zero, or with `across` of all of them together; `pattern` is `2:4` without a
    ratio, or `16x1` with one. `criterion` says which: all but magnitude need `calib`, data for the inputs, of which the first
    `samples` are used. With data the weights that are left make up for the others, unless `compensate` is false. `exclude` are
    patterns of names and operators that stay as they are. The result is compared with the model on `evaluate_on`, by default on
    the calibration data itself. For `recover_minutes` it learns from the model as it was. Raises GraphoptError; nothing is written
    then.
    """
    recipe = Recipe(find_pattern(pattern, ratio), criterion, across, compensate)
    if metric is not None:
        find_metric(metric)
    if recipe.ranks.data and calib is None:
        raise GraphoptError(f"the criterion {criterion} needs calibration data, for what inputs are like")
    require_recoverable(recover_minutes, calib is not None)
    source = read(model)
    normalise(source)
    original = source.clone()
    splits = Splits.of(
        original, calib, evaluate_on, samples, preprocess=preprocess, metric=metric, progress=progress
    )
    data, judge = splits.data, splits.judge
    layers, left_out = _layers(source, exclude, progress)
    seen = {} if data is None else _observed(source, layers, recipe, data, samples, progress, workers)
    progress("sparsify")
    zeros = make_sparse(source, layers, recipe, seen)
    Cleanup().apply(source, Context())
    cost = None if judge is None else judge.judge(source)
    lesson = Lesson(original, data, judge, recover_minutes, None, workers, progress)
    last = lesson.recovered(source, cost)
    if output is not None:
        save(last.model, output)
    notes = [*_warnings(layers, recipe, data, metric if judge is None else None), *last.warnings]
    return Sparsification(last.model, zeros, left_out, notes, last.evaluation, last.recovery)


def _layers(
    model: ir.Model, exclude: Sequence[str], progress: Progress
) -> tuple[list[Layer], dict[str, str]]:
    """The layers of an optimised model, which `model` becomes. Raises GraphoptError for a pattern that matches nothing, and where no
    layer is left."""
    operators = {node.name: node.op_type for node in model.graph if node.name}
    known = {text for node in model.graph for text in (node.name or "", node.op_type)}
    for pattern in exclude:
        if not any(fnmatchcase(text, pattern) for text in known):
            raise GraphoptError(f"no node or operator of the model matches {pattern!r}")
    progress("optimize")
    run_preset(model, "O2", (), Context())
    edit.name_nodes(model.graph)

    def excluded(node: ir.Node) -> bool:
        name = node.name or ""
        texts = {name, node.op_type, operators.get(name, node.op_type)}
        return any(fnmatchcase(text, pattern) for pattern in exclude for text in texts)

    layers, left_out = find_layers(model.graph, excluded)
    if not layers:
        reasons = ", ".join(sorted(set(left_out.values()))) or "it has neither convolutions nor products"
        raise UnreachableError(f"nothing in this model can have zeros: {reasons}")
    return layers, left_out


def _observed(
    model: ir.Model,
    layers: Sequence[Layer],
    recipe: Recipe,
    data: Dataset,
    samples: int,
    progress: Progress,
    workers: int,
) -> dict[str, Inputs]:
    """What the layers read, by their names, from one pass over the data."""
    if not recipe.uses_data:
        return {}
    found = observers(layers, recipe)
    points: dict[str, list[Observer]] = {}
    for layer in layers:
        for value in values(layer):
            points.setdefault(value.name or "", []).append(found[layer.name])
    collect(model, points, data, samples, progress, workers)
    return found


def _warnings(layers: Sequence[Layer], recipe: Recipe, data: Dataset | None, metric: str | None) -> list[str]:
    """What is odd about the request; `metric` is one that was not measured."""
    found = []
    if metric is not None:
        found.append(f"{metric} needs --eval or --calib DATA, and was not measured")
    if data is None:
        return (
            [*found, "without --calib DATA nothing makes up for the weights that became zero"]
            if recipe.compensate
            else found
        )
    if recipe.uses_data and len(data) < FEW:
        found.append(f"only {len(data)} samples: they say little about inputs; {FEW} or more are better")
    large = [layer.name for layer in layers if not is_compensated(layer, recipe)] if recipe.compensate else []
    if large:
        found.append(
            f"nothing makes up for the zeros of {', '.join(large)}: more than {MOST_ROWS} inputs an output"
        )
    return found

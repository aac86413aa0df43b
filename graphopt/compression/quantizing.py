"""What `graphopt quantize` does: float model and data in, a model with integers and a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt.accuracy.calibration import FEW
from graphopt.accuracy.evaluation import Evaluation, Judge, Splits
from graphopt.accuracy.metrics import find_metric
from graphopt.compiling.building import Model, read
from graphopt.compression.quantizer import FLOAT, LEARN, STATIC, Made, Quantizer, Recipe
from graphopt.compression.recovery import Lesson, Recovery, require_recoverable
from graphopt.compression.sensitivity import Journal, Problem, Search, search
from graphopt.compression.techniques import MEASURED, Gain, try_techniques
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Data, Dataset
from graphopt.feeds.fingerprint import fingerprint
from graphopt.model import Statistics, normalise, save, statistics

Progress = Callable[[str], None]

SAMPLES = 300

DEFAULT_METRIC = "agreement"


@dataclass(frozen=True)
class Quantization:
    """A model on integers, and what became of its nodes. `evaluation` is None where there was no data to judge it on."""

    model: ir.Model
    before: Statistics
    after: Statistics
    quantized: list[str]
    left_out: dict[str, str]
    warnings: list[str]
    gains: list[Gain]
    search: Search | None
    evaluation: Evaluation | None
    recovery: Recovery | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "quantized_nodes": len(self.quantized),
            "left_out": self.left_out,
            "bytes_before": self.before.bytes,
            "bytes_after": self.after.bytes,
            "warnings": self.warnings,
            "techniques": [gain.to_json() for gain in self.gains],
            "search": None if self.search is None else self.search.to_json(),
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
            "recovery": None if self.recovery is None else self.recovery.to_json(),
        }


def quantize(
    model: Model,
    calib: Data | None = None,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    samples: int = SAMPLES,
    workers: int = 1,
    exclude: Sequence[str] = (),
    evaluate_on: Data | None = None,
    metric: str | None = None,
    max_drop: float | None = None,
    journal: str | Path | None = None,
    recover_minutes: float | None = None,
    progress: Progress = lambda stage: None,
    **recipe: Any,
) -> Quantization:
    """Quantise convolutions and products to integers, as standard ONNX.

    `recipe` are the fields of `Recipe`; `calib` is data for the inputs, the first `samples` of which are used, and needed for the
    scheme int8. `exclude` are patterns of names and operators that stay float. The result is compared with the float model on
    `evaluate_on`, by default on the calibration data itself. With `max_drop` as many layers stay float as it takes for `metric`,
    by default agreement with the float model, to lose no more; `journal` keeps what was measured. For `recover_minutes` the integers
    learn from the float model. Raises GraphoptError; nothing is written then.
    """
    chosen = _recipe(exclude, recipe)
    _require_sense(chosen, metric, max_drop, recover_minutes, calib is not None)
    source = read(model)
    normalise(source)
    original, before = source.clone(), statistics(source)
    metric = metric or (None if max_drop is None else DEFAULT_METRIC)
    splits = Splits.of(
        original, calib, evaluate_on, samples, preprocess=preprocess, metric=metric, progress=progress
    )
    data, judge = splits.data, splits.judge
    quantizer = Quantizer(source, chosen, data, samples, progress, workers)
    gains = _gains(quantizer, original, data, progress)
    techniques = [gain.technique for gain in gains if gain.kept]
    settings = chosen, metric, samples
    found = _searched(quantizer, techniques, original, splits, settings, max_drop, journal, progress)
    made, cost = _finished(quantizer, techniques, found, judge, max_drop)
    lesson = Lesson(original, data, judge, recover_minutes, max_drop, workers, progress)
    last = lesson.recovered(made.model, cost)
    if output is not None:
        save(last.model, output)
    return Quantization(
        last.model,
        before,
        statistics(last.model),
        made.quantized,
        made.left_out,
        [*_notes(chosen, quantizer, data, judge, metric), *last.warnings],
        gains,
        found,
        last.evaluation,
        last.recovery,
    )


def _require_sense(
    recipe: Recipe, metric: str | None, max_drop: float | None, minutes: float | None, data: bool
) -> None:
    """Raises GraphoptError for a metric that there is not, and for what needs data where there is none."""
    if metric is not None:
        find_metric(metric)
    if not data and STATIC in recipe.schemes:
        raise GraphoptError(f"the scheme {STATIC} needs calibration data, for the ranges of activations")
    if not data and max_drop is not None:
        raise GraphoptError("--max-drop needs --calib DATA, on which layers are judged")
    require_recoverable(minutes, data)


def _finished(
    quantizer: Quantizer,
    techniques: Sequence[str],
    found: Search | None,
    judge: Judge | None,
    max_drop: float | None,
) -> tuple[Made, Evaluation | None]:
    """The model, and what it cost; without learned rounding, which no trial had, where that breaks the budget."""
    floats = () if found is None else found.floats
    made = quantizer.make(techniques, floats)
    cost = None if judge is None else judge.judge(made.model)
    if judge is None or cost is None or max_drop is None or cost.drop <= max_drop:
        return made, cost
    made = quantizer.make([each for each in techniques if each != LEARN], floats)
    return made, judge.judge(made.model)


def _notes(
    recipe: Recipe, quantizer: Quantizer, data: Dataset | None, judge: Judge | None, metric: str | None
) -> list[str]:
    """What is odd about the data, and what was asked for and says nothing here."""
    found = quantizer.warnings(FEW)
    unused = [each for each in recipe.techniques if each not in (*quantizer.techniques, *Recipe().techniques)]
    if unused:
        found.append(f"no effect with {', '.join(sorted(recipe.schemes))}: {', '.join(unused)}")
    if LEARN in quantizer.techniques and data is None:
        found.append(f"{LEARN} needs --calib DATA, and was left out")
    if metric is not None and judge is None:
        found.append(f"{metric} needs --eval or --calib DATA, and was not measured")
    return found


def _recipe(exclude: Sequence[str], options: dict[str, Any]) -> Recipe:
    recipe = Recipe(**options)
    return replace(recipe, layers=(*((pattern, FLOAT) for pattern in exclude), *recipe.layers))


def _gains(quantizer: Quantizer, original: ir.Model, data: Dataset | None, progress: Progress) -> list[Gain]:
    """What each technique of the recipe gains on top of those before it that were kept."""
    techniques = quantizer.techniques
    if data is None or not techniques or not quantizer.layers:
        return []
    judge = Judge(original, data, MEASURED, progress=progress)
    return try_techniques(techniques, lambda kept: quantizer.make(kept).model, judge)


def _searched(
    quantizer: Quantizer,
    techniques: Sequence[str],
    original: ir.Model,
    splits: Splits,
    settings: tuple[Any, ...],
    max_drop: float | None,
    journal: str | Path | None,
    progress: Progress,
) -> Search | None:
    """Which layers stay float so that no more than `max_drop` is lost; None where nothing limits that, or nothing judges it. `settings`
    are the quantiser's, the metric and the number of samples, by which a journal is found again."""
    data, judge = splits.data, splits.judge
    if max_drop is None or judge is None or data is None:
        return None
    subject = fingerprint(original, (*settings, techniques, MEASURED), data, splits.held_out)
    diary = Journal(None if journal is None else Path(journal), subject)
    problem = _problem(quantizer, techniques, judge, Judge(original, data, MEASURED, progress=progress))
    return search(problem, max_drop, diary, progress)


def _problem(quantizer: Quantizer, kept: Sequence[str], judge: Judge, alone: Judge) -> Problem:
    """Of `sensitivity`: which layers of a model have to stay float, before anything is learned."""
    layers, techniques = quantizer.layers, [each for each in kept if each != LEARN]

    def drop_of(floats: Sequence[str]) -> float:
        return judge.judge(quantizer.make(techniques, floats).model).drop

    def sqnr_of(layer: str) -> float:
        others = [other for other in layers if other != layer]
        return alone.judge(quantizer.make(techniques, others).model).sqnr_db

    return Problem(layers, drop_of, sqnr_of)

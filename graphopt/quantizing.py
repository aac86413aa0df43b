"""What `graphopt quantize` does: float model and data in, a model with integers and a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt.building import Model, read
from graphopt.calibration import FEW, observe
from graphopt.data import Dataset, load_dataset
from graphopt.errors import GraphoptError
from graphopt.evaluation import Evaluation, evaluate
from graphopt.model import Statistics, normalise, save, statistics
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.quantize.plan import Plan, make_plan
from graphopt.passes.quantize.qdq import insert
from graphopt.passes.quantize.ranges import METHODS, Seen, parameters
from graphopt.passes.quantize.smooth import Channels, products_of
from graphopt.passes.quantize.smooth import smooth as smooth_channels
from graphopt.pipeline import Context
from graphopt.presets import run_preset

METHOD, SAMPLES = "mse", 300
LEAST_OPSET = 13
"""From which on a scale may belong to a channel."""


@dataclass(frozen=True)
class Quantization:
    """A model on integers, and what became of its nodes."""

    model: ir.Model
    before: Statistics
    after: Statistics
    anchors: int
    left_out: dict[str, str]
    warnings: list[str]
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "quantized_nodes": self.anchors,
            "left_out": self.left_out,
            "bytes_before": self.before.bytes,
            "bytes_after": self.after.bytes,
            "warnings": self.warnings,
            "evaluation": self.evaluation.to_json(),
        }


def quantize(
    model: Model,
    calib: str | Path | Dataset,
    output: str | Path | None = None,
    *,
    preprocess: str | None = None,
    method: str = METHOD,
    samples: int = SAMPLES,
    exclude: Sequence[str] = (),
    smooth: bool = True,
    evaluate_on: str | Path | Dataset | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Quantization:
    """Quantise convolutions and products to int8 with ranges from calibration data, as standard QDQ.

    `calib` is data for the inputs; the first `samples` of it are used. `exclude` are patterns of names and operators that stay
    float; `smooth` evens out the channels that products read. The result is compared with the float model on `evaluate_on`, by
    default on the calibration data itself. Raises GraphoptError; nothing is written then.
    """
    if method not in METHODS:
        raise GraphoptError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    source = read(model)
    normalise(source)
    original, before = source.clone(), statistics(source)
    data = _dataset(calib, source, preprocess)
    held_out = data if evaluate_on is None else _dataset(evaluate_on, source, preprocess)
    progress("optimize")
    run_preset(source, "O2", (), Context())
    if source.opset_imports[""] < LEAST_OPSET:
        ConvertOpset(LEAST_OPSET).apply(source, Context())
    plan = make_plan(source.graph, exclude)
    seen = _calibrate(source, plan, data, samples, progress)
    smoothed = smooth_channels(source, plan, seen.channels) if smooth else {}
    ranges = {leader: METHODS[method](each) for leader, each in seen.values.items()} | smoothed
    insert(source, plan, {leader: parameters(found) for leader, found in ranges.items()})
    Cleanup().apply(source, Context())
    cost = evaluate(original, source, held_out, samples if held_out is data else None, progress)
    if output is not None:
        save(source, output)
    warnings = seen.warnings(len(data))
    return Quantization(source, before, statistics(source), len(plan.anchors), plan.left_out, warnings, cost)


def _dataset(data: str | Path | Dataset, model: ir.Model, preprocess: str | None) -> Dataset:
    return data if isinstance(data, Dataset) else load_dataset(Path(data), model.graph.inputs, preprocess)


@dataclass(frozen=True)
class _Seen:
    """What calibration has seen: by the value that leads each group, and by channel."""

    values: dict[ir.Value, Seen]
    channels: dict[ir.Value, Channels]

    def warnings(self, samples: int) -> list[str]:
        """What is odd about the data."""
        found = [] if self.values else ["nothing in this model can be quantised"]
        if samples < FEW:
            found.append(
                f"only {samples} samples: ranges of activations say little; {FEW} or more are better"
            )
        constant = [leader.name or "" for leader, each in self.values.items() if each.low == each.high]
        if constant:
            found.append(f"{len(constant)} value(s) never changed on this data, {constant[0]!r} for one")
        return found


def _calibrate(
    model: ir.Model, plan: Plan, data: Dataset, samples: int, progress: Callable[[str], None]
) -> _Seen:
    """Look at everything that becomes integer, in one pass over the data."""
    leaders = {value.name: plan.group(value) for value in plan.values if value.name}
    seen = _Seen(
        {leader: Seen() for leader in leaders.values()},
        {value: Channels() for value, _ in products_of(plan)},
    )
    if not leaders:
        return seen
    values = {value.name: value for value in plan.values}
    for batch in observe(model, list(leaders), data, samples, progress):
        for name, array in batch.items():
            seen.values[leaders[name]].add(array)
            if values[name] in seen.channels:
                seen.channels[values[name]].add(array)
    return seen

"""How good a model is on data, as one number, higher is better: built in, or a function of the user's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graphopt.arrays import Array
from graphopt.errors import DataError, GraphoptError

Outputs = Mapping[str, Array]
"""By name, samples along the first axis."""

Labels = NDArray[np.int64] | None

Metric = Callable[[Outputs, Outputs, Mapping[str, Array], Labels], float]
"""Of a model's outputs, given those of the original, the inputs and the labels."""


def agreement(outputs: Outputs, original: Outputs, feeds: Mapping[str, Array], labels: Labels) -> float:
    """Per cent of the last axes of the first output whose largest element is where the original has it."""
    shape = _first(outputs).shape
    if len(shape) < 2 or shape[-1] < 2:
        raise DataError(
            f"agreement is of scores along the last axis, the first output has shape {shape}; try cosine"
        )
    chosen, wanted = (_first(each).argmax(axis=-1) for each in (outputs, original))
    return float(100 * (chosen == wanted).mean())


def cosine(outputs: Outputs, original: Outputs, feeds: Mapping[str, Array], labels: Labels) -> float:
    """100 times the mean cosine, over samples, of the first output and the original's."""
    return 100 * mean_cosine(_first(original), _first(outputs))


def top1(outputs: Outputs, original: Outputs, feeds: Mapping[str, Array], labels: Labels) -> float:
    """Per cent of samples whose label has the largest score."""
    return _top(1, _first(outputs), labels)


def top5(outputs: Outputs, original: Outputs, feeds: Mapping[str, Array], labels: Labels) -> float:
    """Per cent of samples whose label is among the five largest scores."""
    return _top(5, _first(outputs), labels)


METRICS: Mapping[str, Metric] = {"agreement": agreement, "cosine": cosine, "top1": top1, "top5": top5}


def find_metric(name: str) -> Metric:
    """A metric of the table, or `module:function`, whose module may lie in the current folder.

    The function takes outputs and inputs by name, samples along the first axis, and labels or None; it returns a number, higher
    is better. Raises GraphoptError.
    """
    if name in METRICS:
        return METRICS[name]
    module, separator, function = name.partition(":")
    if not separator:
        raise GraphoptError(
            f"unknown metric {name!r}; choose one of {', '.join(METRICS)}, or give module:function"
        )
    given = _import(module, function)

    def metric(outputs: Outputs, original: Outputs, feeds: Mapping[str, Array], labels: Labels) -> float:
        try:
            return float(given(outputs, feeds, labels))
        except Exception as error:
            raise GraphoptError(f"the metric {name} failed: {type(error).__name__}: {error}") from error

    return metric


def mean_cosine(before: Array, after: Array) -> float:
    """Of samples along the first axis; two of zeros are alike."""
    rows, others = (each.reshape(len(each), -1).astype(np.float64) for each in (before, after))
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.mean(np.where(norms > 0, (rows * others).sum(axis=1) / np.maximum(norms, 1e-30), 1.0)))


def _import(module: str, function: str) -> Callable[..., Any]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        found = getattr(import_module(module), function, None)
    except Exception as error:
        raise GraphoptError(
            f"cannot import {module!r} for the metric: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(folder)
    if not callable(found):
        raise GraphoptError(f"the module {module!r} has no function {function!r}")
    return cast(Callable[..., Any], found)


def _first(outputs: Outputs) -> Array:
    return next(iter(outputs.values()))


def _top(count: int, scores: Array, labels: Labels) -> float:
    if labels is None:
        raise DataError(
            f"top{count} needs labels: an array `labels` in the data, or labels.csv in its folder"
        )
    if scores.ndim != 2:
        raise DataError(
            f"top{count} is of scores [samples, classes], the first output has shape {scores.shape}"
        )
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :count]
    return float(100 * (best == labels[: len(scores), None]).any(axis=1).mean())

"""Runs a model over data, once, and shows every observer the values that it wants to see."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.verify import ReferenceFailed, Runner, reference
from graphopt.arrays import Array, Feeds
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.model import save

BATCH = 8
"""Samples at a time where the model leaves their number open."""

CHUNK = 4
"""Batches whose statistics are made together, then joined in order: the result does not depend on who made them."""

FEW = 16
"""Samples below which ranges say little."""

Progress = Callable[[str], None]


class Observer(Protocol):
    """Keeps statistics of one value, in bounded memory."""

    def add(self, array: Array) -> None:
        """Another batch, of finite numbers."""

    def join(self, other: Self) -> None:
        """All that `other` has seen, after what this one has."""


Points = Mapping[str, Sequence[Observer]]
"""Which values are observed, by name, and by whom."""


def batch_size(model: ir.Model, samples: int) -> int:
    """Samples that one run of the model takes: those of the first dimension; where that is free `BATCH`, or all there are."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    firsts = [value.shape[0] for value in inputs if value.shape is not None and len(value.shape)]
    fixed = {first for first in firsts if isinstance(first, int)}
    return max(fixed) if fixed else max(min(BATCH, samples), 1)


def collect(
    model: ir.Model, points: Points, data: Dataset, samples: int, progress: Progress, workers: int = 1
) -> None:
    """Show the observers the first samples, on `workers` processes. Raises DataError where there are none, or NaN or infinity
    among the values."""
    count = min(samples, len(data))
    size = batch_size(model, count)
    if count < size:
        raise DataError(f"the calibration data has {len(data)} sample(s), one run of the model takes {size}")
    empty = copy.deepcopy(dict(points))
    with tempfile.TemporaryDirectory() as folder:
        save(exposing(model, list(points)), path := Path(folder) / "model.onnx")
        with _runs(path, workers) as observed:
            chunks = _chunks(data.batches(size, count))
            for number, found in enumerate(observed((empty, batches) for batches in chunks)):
                progress(f"calibrate: sample {min((number + 1) * CHUNK * size, count)} of {count}")
                for name, observers in points.items():
                    for observer, other in zip(observers, found[name], strict=True):
                        observer.join(other)


_Task = tuple[Points, list[Feeds]]
"""Observers that have seen nothing, and batches for them."""


@contextmanager
def _runs(path: Path, workers: int) -> Iterator[Callable[[Iterator[_Task]], Iterator[Points]]]:
    """Does tasks in order: here, or on processes of its own."""
    if workers == 1:
        yield partial(map, partial(_observed, reference(path, optimised=True)))
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _open, (path,)) as pool:
        yield partial(_in_order, pool, workers)


_opened: list[Runner] = []
"""The model of a worker process."""


def _open(path: Path) -> None:
    _opened.append(reference(path, optimised=True, threads=1))


def _observed_there(task: _Task) -> Points:
    return _observed(_opened[0], task)


def _in_order(pool: Executor, workers: int, tasks: Iterator[_Task]) -> Iterator[Points]:
    """Results in the order of the tasks, of which twice as many are read as there are workers."""
    waiting = [pool.submit(_observed_there, task) for task in islice(tasks, 2 * workers)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(_observed_there, task) for task in islice(tasks, 1)]


def _chunks(batches: Iterator[Feeds]) -> Iterator[list[Feeds]]:
    while chunk := list(islice(batches, CHUNK)):
        yield chunk


def _observed(run: Runner, task: _Task) -> Points:
    """What observers see in a few batches."""
    empty, batches = task
    points = copy.deepcopy(empty)
    for feeds in batches:
        try:
            values = {**feeds, **run(feeds)}
        except ReferenceFailed as error:
            raise DataError(f"the calibration data does not fit the model: {error}") from error
        for name, observers in points.items():
            _require_finite(name, values[name])
            for observer in observers:
                observer.add(values[name])
    return points


def exposing(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of the model that has these values as outputs too."""
    exposing = model.clone()
    present = {value.name for value in (*exposing.graph.inputs, *exposing.graph.outputs)}
    wanted = set(names) - present
    exposing.graph.outputs.extend(
        value for node in exposing.graph for value in node.outputs if value.name in wanted
    )
    return exposing


def _require_finite(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"{name!r} becomes NaN or infinite on the calibration data; is its preprocessing right?"
        )

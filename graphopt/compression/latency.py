"""How long a changed model takes next to what it was made of: both compiled for this machine, and run in turns."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from graphopt import api
from graphopt.arrays import Feeds
from graphopt.errors import GraphoptError
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model.variants import Binding, make_variants
from graphopt.timing.bench import Measurement, Schedule, default_threads, measure
from graphopt.timing.measuring import OURS, BackendLoader

Progress = Callable[[str], None]

BLOCKS, WARMUP = 15, 5

BLOCK_S, FEWEST_RUNS, MOST_RUNS = 0.03, 3, 200
"""A block of runs takes so long, with at least and at most so many."""

SPREAD = (10, 90)
"""Percentiles of the ratios of blocks."""


@dataclass(frozen=True)
class Latency:
    """Median milliseconds before and after, and the median of their ratios over blocks that were run in turns; between `low` and `high` are
    the ratios of most blocks."""

    before_ms: float
    after_ms: float
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{self.before_ms:.3g} -> {self.after_ms:.3g} ms, {100 * self.share:.0f} % of latency "
            f"({100 * self.low:.0f} to {100 * self.high:.0f} % by block)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return dict(vars(self))


class Meter:
    """Compares models with `original`, whose free dimensions have these sizes; the first ones of inputs are 1 by default.

    A context manager: artifacts lie in a folder of its own until it ends. Nothing is compiled before the first comparison.
    """

    def __init__(self, original: ir.Model, sizes: Mapping[str, int], progress: Progress) -> None:
        self._original, self._sizes, self._progress = original, sizes, progress
        self._folder = tempfile.TemporaryDirectory()
        self._first: tuple[Path, Feeds] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def compare(self, model: ir.Model) -> Latency:
        """Raises GraphoptError for a model that cannot be compiled or run, and for free dimensions without sizes."""
        before, feeds = self._before()
        after = self._compiled(model, "after")
        threads = default_threads()
        schedule = Schedule(self._runs(before, feeds, threads), BLOCKS, WARMUP)
        self._progress("latency: measure")
        loaders = {path.stem: BackendLoader(OURS, path, threads) for path in (before, after)}
        found = measure("latency", loaders, feeds, threads=threads, schedule=schedule).backends
        latency = ratio_of(found[before.stem], found[after.stem])
        self._progress(f"latency: {latency}")
        return latency

    def _before(self) -> tuple[Path, Feeds]:
        if self._first is None:
            bound = make_variants(self._original.clone(), Binding(self._sizes, {}, {})).models[0]
            self._first = self._compiled(self._original, "before"), random_feeds(bound)
        return self._first

    def _compiled(self, model: ir.Model, name: str) -> Path:
        self._progress(f"latency: compile the model {name}")
        path = Path(self._folder.name) / f"{name}.gopt"
        return api.build(model.clone(), path, dims=self._sizes, check=False).path

    @staticmethod
    def _runs(path: Path, feeds: Feeds, threads: int) -> int:
        """How many make a block."""
        with api.load(path, threads) as model:
            model.run(None, dict(feeds))
            start = time.perf_counter()
            model.run(None, dict(feeds))
            seconds = time.perf_counter() - start
        return min(max(math.ceil(BLOCK_S / seconds), FEWEST_RUNS), MOST_RUNS)


def ratio_of(before: Measurement, after: Measurement) -> Latency:
    """What two measurements of as many blocks say. Raises GraphoptError for one that failed."""
    for each in (before, after):
        if each.error:
            raise GraphoptError(f"the latency could not be measured: {each.error}")
    medians = [np.median(np.reshape(each.times_ms, (BLOCKS, -1)), axis=1) for each in (before, after)]
    ratios = medians[1] / medians[0]
    low, high = np.percentile(ratios, SPREAD)
    return Latency(before.median_ms, after.median_ms, float(np.median(ratios)), float(low), float(high))

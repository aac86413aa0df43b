"""Makes models by plans, each from the one that lacks its last step; compiles them, and measures them next to the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphopt import api
from graphopt.artifacts.running import random_feeds
from graphopt.compiling.building import Options
from graphopt.compression import pruning, quantizing, sparsifying
from graphopt.compression.clusterer import CORRECT, Clusterer, Recipe
from graphopt.compression.plans import Plan
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.passes.cluster.coded import RECONSTRUCT
from graphopt.timing.bench import Schedule, default_threads, measure
from graphopt.timing.measuring import OURS, BackendLoader

Progress = Callable[[str], None]

SCHEDULE = Schedule(runs=20, blocks=7, warmup=5)
"""Of the timing of candidates, in turns with the model as it was."""

ROUND_TO = 8
"""Widths become multiples of it."""

CLUSTERED_BY = (RECONSTRUCT, CORRECT)

KEPT = 4
"""Models that are more than pruned, of which others may be made."""


class Maker:
    """Makes models by plans, on the data that they learn from. What is pruned alone is made once."""

    def __init__(
        self, source: ir.Model, data: Dataset, samples: int, workers: int, progress: Progress
    ) -> None:
        self._source = source
        self._shared: dict[str, Any] = {"samples": samples, "workers": workers, "progress": progress}
        self._data = data
        self._pruned = lru_cache(maxsize=None)(self._prune)
        self._changed = lru_cache(maxsize=KEPT)(self._change)

    def make(self, plan: Plan) -> ir.Model:
        """The model of a plan. Raises UnreachableError where so few multiply-adds cannot be reached."""
        return self._pruned(plan.share) if plan == Plan(plan.share) else self._changed(plan)

    def _prune(self, share: float) -> ir.Model:
        if share == 1:
            return self._source
        target = pruning.Target("macs", share)
        done = pruning.prune(
            self._source.clone(), target, self._data, schedule="global", round_to=ROUND_TO, **self._shared
        )
        return done.model

    def _change(self, plan: Plan) -> ir.Model:
        """Take the last step of a plan."""
        assert plan.before is not None
        model = self.make(plan.before).clone()
        if plan.clusters is not None:
            return self._clustered(model, plan.clusters)
        if plan.scheme is not None:
            return quantizing.quantize(model, scheme=plan.scheme, calib=self._data, **self._shared).model
        assert plan.zeros is not None
        share, pattern = plan.zeros.share, plan.zeros.pattern
        done = sparsifying.sparsify(
            model, self._data, ratio=share, pattern=pattern, across=pattern is None, **self._shared
        )
        return done.model

    def _clustered(self, model: ir.Model, clusters: int) -> ir.Model:
        """With techniques that are not tried one by one: the whole is judged."""
        clusterer = Clusterer(model, Recipe(clusters, techniques=CLUSTERED_BY), self._data, **self._shared)
        return clusterer.make(clusterer.techniques).model


class Builder:
    """Compiles models by plans, and measures them next to the model as it was."""

    def __init__(
        self, folder: Path, maker: Maker, target: str, options: dict[str, Any], progress: Progress
    ) -> None:
        Options(**options)
        self._folder, self._maker, self._target = folder, maker, target
        self._options, self._progress = options, progress
        self._paths: dict[Plan, Path] = {}

    def artifact(self, plan: Plan, model: ir.Model | None = None) -> Path:
        """The path of the artifact of a plan, made of `model` if that is no plan's that can be made again."""
        if plan not in self._paths:
            path = self._folder / f"{len(self._paths)}.gopt"
            self._progress(f"compile: {plan}")
            made = model or self._maker.make(plan)
            api.build(made.clone(), path, self._target, progress=self._progress, **self._options)
            self._paths[plan] = path
        return self._paths[plan]

    def size(self, plan: Plan) -> int:
        """The bytes of its artifact."""
        return self.artifact(plan).stat().st_size

    def latency(self, plan: Plan) -> float:
        """The median of a plan relative to that of the model as it was, measured in turns. Raises GraphoptError."""
        if plan == Plan():
            return 1.0
        paths = {"before": self.artifact(Plan()), "after": self.artifact(plan)}
        threads = default_threads()
        loaders = {name: BackendLoader(OURS, path, threads) for name, path in paths.items()}
        with api.load(paths["before"]) as compiled:
            feeds = random_feeds(compiled.variants[0])
        found = measure(str(plan), loaders, feeds, threads=threads, schedule=SCHEDULE).backends
        for each in found.values():
            if each.error:
                raise GraphoptError(f"{plan}: {each.error}")
        return found["after"].median_ms / found["before"].median_ms

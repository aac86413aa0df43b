"""Measures schedules inside the whole model.

A kernel that is fastest alone need not be where other kernels have left its operands in other caches, and need not have the same
epilogue. So the model is built with the schedules of the rules and with those that won alone, both run in turns, and what
each kernel took there decides.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.artifacts import artifact
from graphopt.backends.compiler import Library, compile_models
from graphopt.backends.schedules.choice import FAMILIES, Measured
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import Target
from graphopt.backends.tune.database import Database, Trial, versions
from graphopt.backends.tune.places import Place
from graphopt.feeds.random_feeds import random_feeds

WARMUP_ROUNDS, LEAST_ROUNDS, SECONDS = 2, 10, 3.0
"""Every build runs once a round; rounds are repeated for so long, but no fewer."""

Contenders = Mapping[Workload, Sequence[Config]]
Times = Mapping[Workload, float]


def measure_in_model(
    model: ir.Model,
    workloads: Sequence[Workload],
    target: Target,
    database: Database,
    place: Place,
    progress: Callable[[str], None],
) -> None:
    """Add the times of the best schedules, and of those of the rules, in a model whose shapes are all fixed."""
    contenders = {workload: _contenders(workload, target, database) for workload in workloads}
    count = max(map(len, contenders.values()), default=0)
    if count < 2:
        return
    with tempfile.TemporaryDirectory(prefix="graphopt-tune-") as name:
        paths = []
        for number in range(count):
            progress(f"tune: the whole model, build {number + 1} of {count}")
            schedules = Measured(_lineup(contenders, number))
            library = compile_models([model], target, profile=True, schedules=schedules)
            paths.append(_write(library, target, Path(name) / f"{number}.gopt"))
        progress("tune: the whole model, in turns")
        measured = _measure(paths, random_feeds(model), place)
    for workload, configs in contenders.items():
        times = [each[workload] for each in measured[: len(configs)] if workload in each]
        scale = _scale(configs[0], times, database.times_in_model(target.name, workload))
        database.add(
            Trial(workload, target.name, config, spent * scale, versions(), in_model=True)
            for config, spent in zip(configs, times, strict=False)
        )


def _scale(rule: Config, times: Sequence[float], known: Sequence[tuple[Config, float | None]]) -> float:
    """Makes times comparable with those of an earlier run: the schedule of the rules, always the first one, takes as long."""
    earlier = next((spent for config, spent in known if config == rule), None)
    return 1.0 if earlier is None or not times else earlier / times[0]


def _contenders(workload: Workload, target: Target, database: Database) -> list[Config]:
    """The schedule of the rules, the fastest one in a model so far, and the fastest one alone; each once."""
    rule = FAMILIES[workload.family].candidates(workload, target.core)[0][1]
    chosen = [rule]
    for times in (database.times_in_model(target.name, workload), database.times(target.name, workload)):
        fastest = next((config for config, spent in times if spent is not None), rule)
        if fastest not in chosen:
            chosen.append(fastest)
    return chosen


def _lineup(contenders: Contenders, number: int) -> Contenders:
    """For each workload its contender of that number, the others behind it for layers that cannot use it."""
    return {
        workload: [*configs[number : number + 1], *configs[:number], *configs[number + 1 :]]
        for workload, configs in contenders.items()
    }


def _write(library: Library, target: Target, path: Path) -> Path:
    about = {"name": target.name, "arch": target.arch, "features": list(target.demands)}
    manifest = {"target": about, "variants": library.variants, "kernels": library.layers}
    artifact.write(path, [artifact.Build(manifest, library.shared, library.weights)])
    return path


def _measure(paths: Sequence[Path], feeds: Mapping[str, Any], place: Place) -> list[Times]:
    """Microseconds that each build spends on one kernel of every workload, medians over all rounds."""
    with ExitStack() as stack:
        models = [stack.enter_context(place.load(path)) for path in paths]
        rounds: list[list[list[float]]] = [[] for _ in models]
        started = time.monotonic()
        while len(rounds[0]) < LEAST_ROUNDS + WARMUP_ROUNDS or time.monotonic() - started < SECONDS:
            for model, spent in zip(models, rounds, strict=True):
                spent.append(model.layer_times(feeds))
        return [
            _by_workload(model.manifest["kernels"], np.median(spent[WARMUP_ROUNDS:], axis=0))
            for model, spent in zip(models, rounds, strict=True)
        ]


def _by_workload(kernels: Sequence[Mapping[str, Any]], seconds: Iterable[float]) -> Times:
    total: defaultdict[Workload, float] = defaultdict(float)
    layers: defaultdict[Workload, set[str]] = defaultdict(set)
    for kernel, spent in zip(kernels, seconds, strict=True):
        if "workload" in kernel:
            workload = Workload.parse(kernel["workload"])
            total[workload] += 1e6 * float(spent)
            layers[workload].add(kernel["nodes"])
    return {workload: total[workload] / len(layers[workload]) for workload in total}

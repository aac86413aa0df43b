"""Timing: every backend in its own process, measured in interleaved blocks so that drift hits all alike."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphopt.accuracy.comparison import Comparison
from graphopt.accuracy.verify import compare
from graphopt.arrays import Feeds
from graphopt.timing.worker import Loader, Worker


@dataclass(frozen=True)
class Schedule:
    """How often to run: ``warmup`` runs, then ``blocks`` rounds of ``runs`` runs for each backend in turn."""

    runs: int = 20
    blocks: int = 5
    warmup: int = 5
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Measurement:
    """One backend's result; ``error`` is set, and nothing else counts, where it could not be measured. There are no times
    of what ran under an emulator."""

    times_ms: tuple[float, ...] = ()
    load_ms: float = 0.0
    peak_rss_mb: float = 0.0
    precision: str = ""
    max_abs_err: float | None = None
    max_rel_err: float | None = None
    comparisons: tuple[Comparison, ...] = ()
    error: str = ""

    @property
    def is_timed(self) -> bool:
        return bool(self.times_ms)

    @property
    def median_ms(self) -> float:
        """NaN without times, as are the others."""
        return self._percentile(50)

    @property
    def p10_ms(self) -> float:
        return self._percentile(10)

    @property
    def p90_ms(self) -> float:
        return self._percentile(90)

    def _percentile(self, percent: float) -> float:
        return float(np.percentile(self.times_ms, percent)) if self.is_timed else float("nan")

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        fields = (
            "median_ms", "p10_ms", "p90_ms", "load_ms",
            "peak_rss_mb", "precision", "max_abs_err", "max_rel_err",
        )  # fmt: skip
        return {name: self._plain(getattr(self, name)) for name in fields}

    @staticmethod
    def _plain(value: Any) -> Any:
        """None for what is not a number, which JSON does not have."""
        return None if isinstance(value, float) and np.isnan(value) else value


@dataclass(frozen=True)
class Benchmark:
    """The result of ``measure``: measurements by backend name, in the order they were given."""

    model: str
    threads: int
    runs: int
    backends: Mapping[str, Measurement] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The schema of ``compare --json``."""
        return {
            "model": self.model,
            "threads": self.threads,
            "runs": self.runs,
            "backends": {name: measurement.to_json() for name, measurement in self.backends.items()},
        }


def default_threads() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0))


def measure(
    model: str,
    loaders: Mapping[str, Loader],
    feeds: Feeds,
    *,
    threads: int,
    expected: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
) -> Benchmark:
    """Time every loader's runner on ``feeds`` and compare its outputs with ``expected``.

    A backend that fails, crashes or exceeds the time limit gets an ``error`` and does not disturb the others.
    ``threads`` is recorded; the loaders carry it themselves.
    """
    schedule = schedule or Schedule()
    workers = {name: Worker(loader, feeds, schedule.timeout_s) for name, loader in loaders.items()}
    try:
        results = _interleave(workers, schedule)
    finally:
        for worker in workers.values():
            worker.stop()
    return Benchmark(
        model,
        threads,
        schedule.runs * schedule.blocks,
        {name: _judge(measurement, outputs, expected) for name, (measurement, outputs) in results.items()},
    )


def _interleave(workers: Mapping[str, Worker], schedule: Schedule) -> dict[str, tuple[Measurement, Any]]:
    """Load one after the other, then give each worker a block in turn."""
    loaded = {name: worker.ask("load", schedule.warmup) for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(schedule.blocks):
        for name, worker in workers.items():
            times[name].extend(worker.ask("block", schedule.runs) or ())
    return {name: _collect(worker, loaded[name], times[name]) for name, worker in workers.items()}


def _collect(worker: Worker, loaded: Any, times: Sequence[float]) -> tuple[Measurement, Any]:
    peak = worker.ask("peak")
    if worker.error:
        return Measurement(error=worker.error), None
    return Measurement(tuple(times), loaded["load_ms"], peak, loaded["precision"]), loaded["outputs"]


def _judge(measurement: Measurement, outputs: Any, expected: Mapping[str, Any] | None) -> Measurement:
    if measurement.error or expected is None:
        return measurement
    verdict = compare(expected, outputs)
    return replace(
        measurement,
        max_abs_err=verdict.max_abs_err,
        max_rel_err=verdict.max_rel_err,
        comparisons=tuple(verdict.outputs),
    )

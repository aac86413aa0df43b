"""Throughput and latency of one loaded model that several threads call at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.arrays import Feeds

if TYPE_CHECKING:
    from graphopt_runtime import CompiledModel

WARMUP_CALLS = 5


@dataclass(frozen=True)
class Load:
    """The result of `measure_streams`: the milliseconds of every call, and the seconds of all together."""

    model: str
    streams: int
    threads: int
    times_ms: tuple[float, ...]
    seconds: float

    @property
    def calls_per_s(self) -> float:
        return len(self.times_ms) / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        p10, median, p90 = np.percentile(self.times_ms, (10, 50, 90)).tolist()
        return {
            "model": self.model,
            "streams": self.streams,
            "threads": self.threads,
            "calls": len(self.times_ms),
            "calls_per_s": self.calls_per_s,
            "median_ms": median,
            "p10_ms": p10,
            "p90_ms": p90,
        }


def measure_streams(name: str, model: CompiledModel, feeds: Feeds, streams: int, calls: int) -> Load:
    """Call `model` from `streams` threads, `calls` times each, all starting together. Raises InputError."""
    for _ in range(WARMUP_CALLS):
        model.run(None, feeds)
    barrier = threading.Barrier(streams + 1)
    with ThreadPoolExecutor(streams) as pool:
        callers = [pool.submit(_call_repeatedly, model, feeds, calls, barrier) for _ in range(streams)]
        barrier.wait()
        started = time.perf_counter()
        times = [spent for caller in callers for spent in caller.result()]
        seconds = time.perf_counter() - started
    return Load(name, streams, model.threads, tuple(times), seconds)


def _call_repeatedly(
    model: CompiledModel, feeds: Feeds, calls: int, barrier: threading.Barrier
) -> list[float]:
    barrier.wait()
    return [_time_call(model, feeds) for _ in range(calls)]


def _time_call(model: CompiledModel, feeds: Feeds) -> float:
    started = time.perf_counter_ns()
    model.run(None, feeds)
    return (time.perf_counter_ns() - started) / 1e6

"""Where the time of a compiled model goes: the milliseconds of every kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.arrays import Feeds

if TYPE_CHECKING:
    from graphopt_runtime import CompiledModel

WARMUP_RUNS = 3


@dataclass(frozen=True)
class LayerTimes:
    """The median milliseconds of each kernel, named by the nodes that it computes, in order of execution."""

    model: str
    threads: int
    runs: int
    layers: tuple[tuple[str, float], ...]

    @property
    def total_ms(self) -> float:
        return sum(ms for _, ms in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "model": self.model,
            "threads": self.threads,
            "runs": self.runs,
            "total_ms": self.total_ms,
            "layers": [{"kernel": kernel, "median_ms": ms} for kernel, ms in self.layers],
        }


def measure_layers(name: str, model: CompiledModel, feeds: Feeds, threads: int, runs: int) -> LayerTimes:
    """Run a model that was compiled with profiling. Raises InputError for any other."""
    for _ in range(WARMUP_RUNS):
        model.run(None, feeds)
    seconds = np.median([model.layer_times(feeds) for _ in range(runs)], axis=0)
    kernels = model.manifest["kernels"]
    layers = tuple((kernel, 1e3 * float(each)) for kernel, each in zip(kernels, seconds, strict=True))
    return LayerTimes(name, threads, runs, layers)

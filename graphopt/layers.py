"""Where the time of a compiled model goes: the milliseconds of every kernel, its work, and what the machine could do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.arrays import Feeds

if TYPE_CHECKING:
    from graphopt.backends.peak import Peak
    from graphopt_runtime import CompiledModel

WARMUP_RUNS = 3


@dataclass(frozen=True)
class Layer:
    """One kernel call. ``nodes`` are those of the optimised model, ``bytes`` the size of the buffers it touches."""

    kernel: str
    nodes: str
    macs: int
    bytes: int
    ms: float

    @property
    def gflops(self) -> float:
        """GFLOP/s; a multiply-accumulate counts as two operations."""
        return 2e-6 * self.macs / self.ms if self.ms else 0.0


@dataclass(frozen=True)
class LayerTimes:
    """The median time of each kernel, in order of execution, and the peak of the machine with as many threads."""

    model: str
    threads: int
    runs: int
    layers: tuple[Layer, ...]
    peak: Peak

    @property
    def total_ms(self) -> float:
        return sum(layer.ms for layer in self.layers)

    def of_peak(self, layer: Layer) -> float:
        """The share of the machine's measured float32 peak."""
        return layer.gflops / self.peak.gflops

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "model": self.model,
            "threads": self.threads,
            "runs": self.runs,
            "total_ms": self.total_ms,
            "peak_gflops": self.peak.gflops,
            "peak_gbytes_s": self.peak.gbytes_s,
            "layers": [
                {
                    "kernel": layer.kernel,
                    "nodes": layer.nodes,
                    "median_ms": layer.ms,
                    "share": layer.ms / self.total_ms,
                    "macs": layer.macs,
                    "bytes": layer.bytes,
                    "gflops": layer.gflops,
                    "of_peak": self.of_peak(layer),
                }
                for layer in self.layers
            ],
        }


def measure_layers(
    name: str, model: CompiledModel, feeds: Feeds, threads: int, runs: int, peak: Peak
) -> LayerTimes:
    """Run a model that was compiled with profiling. Raises InputError for any other."""
    for _ in range(WARMUP_RUNS):
        model.run(None, feeds)
    seconds = np.median([model.layer_times(feeds) for _ in range(runs)], axis=0)
    kernels = model.manifest["kernels"]
    layers = (Layer(**each, ms=1e3 * float(spent)) for each, spent in zip(kernels, seconds, strict=True))
    return LayerTimes(name, threads, runs, tuple(layers), peak)

"""Where the time of a compiled model goes: the milliseconds of every kernel, its work, and what the machine could do."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.arrays import Feeds

if TYPE_CHECKING:
    from graphopt_runtime import CompiledModel

WARMUP_RUNS = 3

PLAIN = ("conv", "gemm", "integer_conv")
"""Kernels whose multiplications are those of the operator."""


@dataclass(frozen=True)
class Peak:
    """float32 GFLOP/s (a multiply-accumulate counts as two) and GB/s that all threads reach together; billions of operations a
    second on bytes, None without an instruction for them."""

    gflops: float
    gbytes_s: float
    integer_gops: float | None = None


@dataclass(frozen=True)
class NodeTime:
    """The median milliseconds of one node in a peer; ``macs`` is 0 where it multiplies no matrices."""

    name: str
    op: str
    macs: int
    ms: float


@dataclass(frozen=True)
class Layer:
    """One kernel call. ``nodes`` are those of the optimised model, ``bytes`` the size of the buffers it touches, ``workload``
    what tuning knows it by, ``symbol`` its name in the library, ``peer_ms`` what ONNX Runtime takes for the same multiplications."""

    kernel: str
    nodes: str
    macs: int
    bytes: int
    ms: float
    symbol: str = ""
    workload: str | None = None
    peer_ms: float | None = None
    integer: bool = False
    """Whether the multiply-accumulates are of integers."""

    @property
    def gflops(self) -> float:
        """GFLOP/s; a multiply-accumulate counts as two operations."""
        return 2e-6 * self.macs / self.ms if self.ms else 0.0


@dataclass(frozen=True)
class LayerTimes:
    """The median time of each kernel, in order of execution, and the peak of the machine with as many threads.

    ``peer_total_ms`` is the sum over all nodes of ONNX Runtime.
    """

    model: str
    threads: int
    runs: int
    layers: tuple[Layer, ...]
    peak: Peak
    peer_total_ms: float

    @property
    def total_ms(self) -> float:
        return sum(layer.ms for layer in self.layers)

    @property
    def reached(self) -> float | None:
        """The share of the peak over the whole time of convolutions and products; Winograd's, which save multiplications,
        are left out. None without any."""
        return self._share(self._multiplying_ms)

    @property
    def of_roof(self) -> float | None:
        """The same of the roofline, which is lower where a kernel's buffers take longer to pass through memory."""
        return self._share(lambda layer: max(self._multiplying_ms(layer), self._moving_ms(layer)))

    def _share(self, least_ms: Callable[[Layer], float]) -> float | None:
        plain = [layer for layer in self.layers if layer.kernel in PLAIN]
        spent = sum(layer.ms for layer in plain)
        return sum(map(least_ms, plain)) / spent if spent else None

    def _multiplying_ms(self, layer: Layer) -> float:
        return 2e-6 * layer.macs / self._peak_of(layer)

    def _moving_ms(self, layer: Layer) -> float:
        return 1e-6 * layer.bytes / self.peak.gbytes_s

    def of_peak(self, layer: Layer) -> float:
        """The share of the machine's measured peak: of integers where there is one and the layer is of them, else of float32."""
        return layer.gflops / self._peak_of(layer)

    def _peak_of(self, layer: Layer) -> float:
        return (self.peak.integer_gops if layer.integer else None) or self.peak.gflops

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "model": self.model,
            "threads": self.threads,
            "runs": self.runs,
            "total_ms": self.total_ms,
            "peer_total_ms": self.peer_total_ms,
            "peak_gflops": self.peak.gflops,
            "peak_gbytes_s": self.peak.gbytes_s,
            "peak_integer_gops": self.peak.integer_gops,
            "of_peak": self.reached,
            "of_roof": self.of_roof,
            "layers": [
                {
                    "kernel": layer.kernel,
                    "symbol": layer.symbol,
                    "nodes": layer.nodes,
                    "median_ms": layer.ms,
                    "share": layer.ms / self.total_ms,
                    "macs": layer.macs,
                    "integer": layer.integer,
                    "bytes": layer.bytes,
                    "workload": layer.workload,
                    "gflops": layer.gflops,
                    "of_peak": self.of_peak(layer),
                    "peer_ms": layer.peer_ms,
                }
                for layer in self.layers
            ],
        }


def chrome_trace(times: LayerTimes) -> dict[str, Any]:
    """The kernels one after the other as Chrome's trace events, which its about:tracing and Perfetto show; in microseconds."""
    events, start = [], 0.0
    for layer in times.layers:
        events.append(
            {
                "name": layer.nodes,
                "cat": layer.kernel,
                "ph": "X",
                "pid": 0,
                "tid": 0,
                "ts": start,
                "dur": 1e3 * layer.ms,
                "args": {"macs": layer.macs, "bytes": layer.bytes, "gflops": layer.gflops},
            }
        )
        start += 1e3 * layer.ms
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"model": times.model}}


def measure_layers(model: CompiledModel, feeds: Feeds, runs: int) -> list[Layer]:
    """Run a model that was compiled with profiling. Raises InputError for any other."""
    for _ in range(WARMUP_RUNS):
        model.run(None, feeds)
    seconds = np.median([model.layer_times(feeds) for _ in range(runs)], axis=0)
    kernels = model.manifest["kernels"]
    return [Layer(**each, ms=1e3 * float(spent)) for each, spent in zip(kernels, seconds, strict=True)]


def beside_peer(layers: Iterable[Layer], nodes: Iterable[NodeTime]) -> tuple[Layer, ...]:
    """Layers with the times of ONNX Runtime's nodes that do as many multiplications, matched in order."""
    waiting: defaultdict[int, deque[float]] = defaultdict(deque)
    for node in nodes:
        waiting[node.macs].append(node.ms)
    return tuple(
        replace(layer, peer_ms=waiting[layer.macs].popleft()) if layer.macs and waiting[layer.macs] else layer
        for layer in layers
    )

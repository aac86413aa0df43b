"""Latency next to the peers, in float32: `python benchmarks/latency.py [NAME...] [--threads 2] [--batch 8] [--tune 20] [--folder FOLDER]`.

Every float model is compiled, then timed in interleaved blocks with ONNX Runtime and OpenVINO, each in a process of its own
with the same number of threads. A ratio is graphopt's median over that of the faster peer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphopt import api
from graphopt.accuracy.islands import quantised_values
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.errors import GraphoptError
from graphopt.timing.bench import Benchmark, Measurement, Schedule
from graphopt.timing.measuring import OURS
from graphopt.timing.tuning import Budget, Tuning
from measured_models import CLASSIFIERS, batched, binding, model_paths, models_of

PEERS = ("onnxruntime", "openvino")
MOST_TRIALS = 100_000

LARGE_MS = 2.0
"""ONNX Runtime's milliseconds above which a model counts as large."""

HEADINGS = ("model", "graphopt ms", "p10 - p90", *(f"{peer} ms" for peer in PEERS), "ratio to the best")


@dataclass(frozen=True)
class Row:
    """One model, timed."""

    name: str
    timed: Benchmark

    @property
    def ours(self) -> Measurement:
        return self.timed.backends[OURS]

    @property
    def best_peer_ms(self) -> float:
        peers = [self.timed.backends[name] for name in PEERS]
        return min((peer.median_ms for peer in peers if not peer.error), default=float("inf"))

    @property
    def ratio(self) -> float:
        return self.ours.median_ms / self.best_peer_ms

    @property
    def is_large(self) -> bool:
        peer = self.timed.backends[PEERS[0]]
        return not peer.error and peer.median_ms > LARGE_MS

    def texts(self) -> list[str]:
        ours = self.ours
        return [
            self.name,
            f"{ours.median_ms:.3f}",
            f"{ours.p10_ms:.3f} - {ours.p90_ms:.3f}",
            *(_milliseconds(self.timed.backends[peer]) for peer in PEERS),
            f"{self.ratio:.2f}",
        ]


def _milliseconds(one: Measurement) -> str:
    return "-" if one.error else f"{one.median_ms:.3f}"


def float_models(paths: Sequence[Path]) -> list[Path]:
    """Those without quantised values, whose precision the peers share."""
    return [path for path in paths if not quantised_values(building.read(path))]


def chosen_models(names: Sequence[str], batch: int, folder: Path | None) -> list[Path]:
    """Float models by parts of their names, those of a folder where one is given; classifiers of batches where a batch is more than one
    example."""
    paths = float_models(model_paths(True, names) if folder is None else models_of(folder, names))
    if batch == 1:
        return paths
    return [batched(path, batch) for path in paths if path.stem.startswith(CLASSIFIERS)]


def measure(path: Path, threads: int, schedule: Schedule, tune_seconds: float) -> Row:
    """Compile and time one model. Raises GraphoptError for one that graphopt cannot run."""
    backends: dict[str, Path | None] = dict.fromkeys((OURS, *PEERS))
    with tempfile.TemporaryDirectory() as folder:
        if tune_seconds:
            compiled, database = Path(folder) / "tuned.gopt", Path(folder) / "schedules"
            tuning = Tuning(database, Budget(MOST_TRIALS, tune_seconds), threads)
            backends[OURS] = api.build(path, compiled, tuning=tuning, check=False, **binding(path)).path
        timed = api.compare(path, backends, threads=threads, schedule=schedule, **binding(path))
    if timed.backends[OURS].error:
        raise GraphoptError(timed.backends[OURS].error)
    return Row(path.stem, timed)


def summary(rows: Sequence[Row]) -> str:
    """Geometric means over all, the large and the small models."""
    groups = {
        "all": rows,
        f"above {LARGE_MS:g} ms": [row for row in rows if row.is_large],
        "the others": [row for row in rows if not row.is_large],
    }
    means = [
        f"{name} ({len(group)}): {np.exp(np.mean(np.log([row.ratio for row in group]))):.3f}"
        for name, group in groups.items()
        if group
    ]
    return f"Geometric mean of the ratios, {', '.join(means)}; largest {max(row.ratio for row in rows):.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of model names; all without")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--tune", type=float, default=0, metavar="SECONDS", help="tune each model for so long"
    )
    parser.add_argument("--batch", type=int, default=1, help="more than 1: the classifiers alone")
    parser.add_argument("--folder", type=Path, help="of ONNX models, in place of the usual ones")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=7)
    chosen = parser.parse_args()
    rows: list[Row] = []
    for path in chosen_models(chosen.names, chosen.batch, chosen.folder):
        try:
            schedule = Schedule(chosen.runs, chosen.blocks, 3)
            rows.append(measure(path, chosen.threads, schedule, chosen.tune))
        except GraphoptError as error:
            print(f"{path.stem}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        print(" | ".join(rows[-1].texts()), file=sys.stderr, flush=True)
    print(markdown(HEADINGS, [row.texts() for row in rows]))
    if rows:
        print(f"\n{summary(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Clustered weights: how small files get, and what that costs.

`GRAPHOPT_ZOO=... python benchmarks/clustering.py [--clusters N,N...] [--without-data] [NAME...]`

Every model is clustered by `graphopt cluster` with its defaults, on calibration data unless it is to do without, and judged on other data.
The ONNX files are compared as `zip -9` packs them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphopt import api
from graphopt.accuracy.evaluation import Evaluation
from graphopt.cli.report import markdown
from graphopt.compression.clustering import Clustering, cluster
from graphopt.passes.cluster.codebook import Size, make_codebook
from int8_data import CASES, Case, datasets

HEADINGS = (
    "model",
    "clusters",
    "ONNX MB",
    "zip MB",
    "smaller by",
    "bound",
    "bits",
    "artifact MB",
    "SQNR dB",
    "agreement",
    "top-1",
    "change",
)
CLUSTERS = (2, 3, 8, 16, 32, 256)
LARGE = 50_000_000


def bound(done: Clustering) -> float:
    """How many times smaller the zip would be if it held nothing but codes of as many bits as their entropy says."""
    return done.before.deflated / (done.weights * done.bits / 8)


def quality(found: Evaluation | None) -> list[str]:
    """Cells of what it cost."""
    assert found is not None
    agreement = "" if found.agreement is None else f"{100 * found.agreement:.2f} %"
    if found.top1 is None or found.interval is None:
        return [f"{found.sqnr_db:.1f}", agreement, "", ""]
    before, after = (100 * share for share in found.top1)
    change = f"{after - before:+.2f} +- {100 * found.interval:.2f}"
    return [f"{found.sqnr_db:.1f}", agreement, f"{before:.2f} -> {after:.2f}", change]


def sizes(before: float, after: float) -> str:
    return f"{before / 1e6:.2f} -> {after / 1e6:.2f}"


def rows(case: Case, model: Path, clusters: list[int], without_data: bool) -> Iterator[list[str]]:
    """Of one model: a row for each number of clusters."""
    calib, test = datasets(case, model.parents[1])
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"dims": dict(case.dims), "check": False}
        plain = api.build(model, Path(folder) / "plain.gopt", **options).bytes
        for count in clusters:
            done = cluster(model, None if without_data else calib, clusters=count, evaluate_on=test)
            built = api.build(done.model, Path(folder) / "small.gopt", **options).bytes
            yield row(case.model, count, done, (plain, built))


def row(model: str, count: int, done: Clustering, artifacts: tuple[int, int]) -> list[str]:
    return [
        model,
        str(count),
        sizes(done.before.bytes, done.after.bytes),
        sizes(done.before.deflated, done.after.deflated),
        f"{done.before.deflated / done.after.deflated:.2f}",
        f"{bound(done):.2f}",
        f"{done.bits:.2f}",
        sizes(*artifacts),
        *quality(done.evaluation),
    ]


def many_weights(count: int) -> str:
    """How long a codebook, and codes, of that many weights take."""
    weights = np.random.default_rng(0).standard_normal(count, np.float32)
    started = time.perf_counter()
    book = make_codebook(weights, Size(32))
    found = time.perf_counter()
    book.codes(weights)
    ended = time.perf_counter()
    return f"{count / 1e6:.0f} million weights, 32 clusters: {found - started:.1f} s, codes {ended - found:.1f} s"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", default=",".join(map(str, CLUSTERS)))
    parser.add_argument("--without-data", action="store_true")
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    clusters = [int(part) for part in chosen.clusters.split(",")]
    print(f"{many_weights(LARGE)}\n", flush=True)
    zoo, found = Path(os.environ["GRAPHOPT_ZOO"]), []
    for case in CASES:
        if chosen.names and case.model not in chosen.names:
            continue
        for each in rows(case, zoo / "models" / f"{case.model}.onnx", clusters, chosen.without_data):
            found.append(each)
            print(*each, sep=" | ", flush=True)
    print(f"\n{markdown(HEADINGS, found)}")


if __name__ == "__main__":
    main()

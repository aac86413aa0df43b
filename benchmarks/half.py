"""bfloat16 next to float32, both compiled by graphopt: what it costs, and what it gains.

`GRAPHOPT_ZOO=... python benchmarks/half.py [--light] [--samples 200] [--threads N] [NAME...]`

Times are of both builds in turns. Answers are compared with ONNX Runtime's float32 on real data, where there is any.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from graphopt import api
from graphopt.accuracy.verify import reference
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.errors import GraphoptError
from graphopt.feeds.data import load_dataset
from graphopt.model.variants import Binding, make_variants
from int8_data import CASES
from measured_models import CLASSIFIERS, binding, model_paths

HEADINGS = (
    "model", "multiply bfloat16", "MB", "of float32", "max rel err", "same top-1", "float32 ms", "bfloat16 ms", "ratio",
)  # fmt: skip

TARGET = "x86-64-v4-bf16"


def agreement(path: Path, artifact: Path, samples: int) -> str:
    """The share of samples on which the largest result is the same as ONNX Runtime's; empty for what has no classes or data."""
    case = next(
        (each for each in CASES if each.model == path.stem and each.model.startswith(CLASSIFIERS)), None
    )
    if case is None or not samples:
        return ""
    model = make_variants(building.read(path), Binding(dict(case.dims))).models[0]
    data = Path(os.environ["GRAPHOPT_ZOO"]) / "data" / (case.test or case.calib)
    dataset, run = load_dataset(data, list(model.graph.inputs), case.preprocess), reference(model)
    same = []
    with api.load(artifact) as compiled:
        for feeds in dataset.batches(1, samples):
            theirs = next(iter(run(feeds).values()))
            same.append(int(np.argmax(compiled.run(None, dict(feeds))[0])) == int(np.argmax(theirs)))
    return f"{sum(same)} of {len(same)}"


def row(path: Path, folder: Path, threads: int | None, samples: int) -> tuple[list[str], float]:
    """A model's row of the table, and its ratio."""
    options: dict[str, Any] = binding(path)
    plain = api.build(path, folder / "fp32.gopt", TARGET, check=False, **options)
    half = api.build(path, folder / "bf16.gopt", TARGET, precision="bf16", **options)
    builds = {"graphopt": plain.path, "graphopt:bf16": half.path}
    measured = api.compare(path, builds, threads=threads, **options).to_json()["backends"]
    first, second = (measured[name]["median_ms"] for name in builds)
    layers = half.notices[-1].split(": ")[1].split(" convolutions")[0]
    size = f"{half.bytes / 1e6:.2f}", f"{half.bytes / plain.bytes:.2f}"
    same = agreement(path, half.path, samples)
    times = f"{first:.3f}", f"{second:.3f}", f"{second / first:.2f}"
    return [path.stem, layers, *size, f"{half.verdict.max_rel_err:.1e}", same, *times], second / first


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    rows, ratios = [], []
    for path in model_paths(chosen.light, chosen.names):
        with tempfile.TemporaryDirectory() as folder:
            try:
                cells, ratio = row(path, Path(folder), chosen.threads, chosen.samples)
            except GraphoptError as error:
                print(f"{path.stem}: {str(error).splitlines()[0]}", flush=True)
                continue
        rows.append(cells)
        ratios.append(ratio)
        print(*cells, sep=" | ", flush=True)
    print(f"\n{markdown(HEADINGS, rows)}\n")
    print(f"Geometric mean of the ratios over {len(ratios)} models: {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    main()

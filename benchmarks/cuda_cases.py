"""Models compiled for a GPU, each with inputs and the results of ONNX Runtime: what `cuda_suite.py` checks. No GPU is needed.

Quantised models are compiled a second time, cut at every quantised value, so that each operator gets ONNX Runtime's own inputs.

`[GRAPHOPT_ZOO=...] python benchmarks/cuda_cases.py FOLDER [NAME...] [--light]` makes sets `FOLDER/0`, `FOLDER/1`, ... that fit a transfer of `--limit` MiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from cuda_suite import cosine
from graphopt import api
from graphopt.accuracy.islands import exposed, isolate, quantised_values
from graphopt.accuracy.verify import reference, self_difference
from graphopt.compiling import building
from graphopt.errors import GraphoptError
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model.variants import Binding, make_variants
from measured_models import binding, model_paths

TARGET = "cuda:sm_90"
PRECISIONS = ("fp32", "fp16")
SAMPLES = 4
"""Random inputs of each model."""

CUT = "{}_by_operator"
"""The name of a model that is cut at its quantised values."""


def build(folder: Path, names: Sequence[str], light: bool, limit: float) -> None:
    """Artifacts and cases of all models, then sets of them. Those of one process: the compiler's memory is given back."""
    made = folder / "made"
    made.mkdir(parents=True, exist_ok=True)
    shipped = sorted((Path(__file__).parents[1] / "models").glob("*.onnx"))
    own = [path for path in shipped if not names or any(part in path.stem for part in names)]
    for path in [*own, *model_paths(light, names)]:
        if not (made / f"{path.stem}.npz").exists():
            process = multiprocessing.get_context("spawn").Process(target=build_one, args=(made, path))
            process.start()
            process.join()
    pack(folder, made, limit)


def build_one(folder: Path, path: Path) -> None:
    """Of both precisions, and the case; of a quantised model the one that is cut, too."""
    built = [build_artifact(folder, path, precision) for precision in PRECISIONS]
    if any(built):
        np.savez(folder / f"{path.stem}.npz", **case(path))
    if built[0] and quantised_values(building.read(path)):
        build_cut(folder, path)


def build_artifact(folder: Path, path: Path, precision: str) -> bool:
    """False where it was refused, which is told."""
    out = folder / f"{path.stem}.{precision}.gopt"
    try:
        done = api.build(path, out, TARGET, check=False, precision=precision, **binding(path))
    except GraphoptError as error:
        print(f"{path.stem} {precision}: refused: {str(error).splitlines()[0]}", flush=True)
        return False
    print(f"{path.stem} {precision}: {done.bytes / 1e6:.1f} MB, {done.kernels} kernels", flush=True)
    return True


def build_cut(folder: Path, path: Path) -> None:
    """The model that is cut, and its case: inputs, all results, and the names of those that are given, too."""
    model = variant(path)
    names, feeds = quantised_values(model), random_feeds(model)
    expected = reference(exposed(model, names))(feeds)
    cut = folder / f"{CUT.format(path.stem)}.onnx"
    ir.save(isolate(model, {name: expected[name] for name in names}), cut)
    built = build_artifact(folder, cut, "fp32")
    cut.unlink()
    if not built:
        return
    arrays: dict[str, Any] = {f"in/0/{name}": value for name, value in feeds.items()}
    arrays |= {f"out/0/{name}": np.asarray(value) for name, value in expected.items()}
    np.savez_compressed(cut.with_suffix(".npz"), cut=np.array(names), **arrays)


def variant(path: Path) -> ir.Model:
    """The model whose dimensions are known."""
    return make_variants(building.read(path), Binding(**{"values": {}, **binding(path)})).models[0]


def case(path: Path) -> Mapping[str, Any]:
    """Inputs, results of ONNX Runtime, and what those differ from its optimised ones."""
    model = variant(path)
    plain, optimised = reference(model), reference(model, optimised=True)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "integers": np.array(bool(quantised_values(building.read(path))))
    }
    own, alike = 0.0, 1.0
    for sample in range(SAMPLES):
        feeds = random_feeds(model, sample)
        expected = plain(feeds)
        again = optimised(feeds)
        own = max(own, self_difference(expected, again))
        alike = min(
            alike, *(cosine(np.asarray(again[name]), np.asarray(expected[name])) for name in expected)
        )
        arrays |= {f"in/{sample}/{name}": value for name, value in feeds.items()}
        arrays |= {f"out/{sample}/{name}": np.asarray(value) for name, value in expected.items()}
    return {**arrays, "own": np.array(own), "own cosine": np.array(alike)}


def pack(folder: Path, made: Path, limit: float) -> None:
    """Sets of models whose files fit a transfer, the smallest first; names those that fit none."""
    room, number = 0.0, -1
    sizes = {case: sum(f.stat().st_size for f in made.glob(f"{case.stem}.*")) for case in made.glob("*.npz")}
    for each, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if size > limit * 2**20:
            print(f"{each.stem}: {size / 2**20:.0f} MiB are too many for a transfer; left out")
            continue
        if size > room:
            number, room = number + 1, limit * 2**20
            shutil.rmtree(folder / str(number), ignore_errors=True)
            (folder / str(number)).mkdir()
        room -= size
        for file in made.glob(f"{each.stem}.*"):
            shutil.copy(file, folder / str(number))
    print(f"{number + 1} set(s) in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="parts of the names of models")
    parser.add_argument("--light", action="store_true", help="the light models too")
    parser.add_argument("--limit", type=float, default=56, help="MiB of a set")
    chosen = parser.parse_args()
    build(chosen.folder, chosen.names, chosen.light, chosen.limit)


if __name__ == "__main__":
    main()

"""What pruning, clustering and entropy coding save one after the other, on the digits models that we ship and on SqueezeNet.

`[GRAPHOPT_ZOO=...] PYTHONPATH=models python benchmarks/deep_compression.py [--samples N] [NAME...]`

Channels go until a share of the parameters is left, the layers that remain are fitted, and weights get 32 values each; nothing is trained.
Files are compared as `zip -9` packs them, as in Han et al., "Deep Compression", 2016.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

import digits
from graphopt import api
from graphopt.accuracy.evaluation import Evaluation, Judge
from graphopt.cli.report import markdown
from graphopt.compression.clustering import cluster
from graphopt.compression.footprint import footprint
from graphopt.compression.pruning import Target, prune
from graphopt.feeds.data import Dataset
from graphopt.model import load, normalise, statistics
from int8_data import CASES, datasets

HEADINGS = ("model", "step", "parameters", "ONNX MB", "zip MB", "smaller by", "artifact MB", "top-1")

MODELS = Path(__file__).parents[1] / "models"

DIGITS = {
    "digits_cnn": 0.5,
    "digits_depthwise": 0.7,
    "digits_mlp": 0.5,
    "digits_recurrent": 0.7,
    "digits_transformer": 0.7,
}
"""The share of the parameters that is left."""

SQUEEZENET, SQUEEZENET_SHARE = "squeezenet1.1_ncnnfp16", 0.9

CLUSTERS = 32


def rows(path: Path, share: float, calib: Dataset, test: Dataset) -> Iterator[list[str]]:
    """The model as it was, pruned, clustered, and both."""
    source = load(path)
    normalise(source)
    judge = Judge(source.clone(), test)
    pruned = prune(path, Target("params", share), calib, schedule="global", round_to=1).model
    models = {
        "as it was": source,
        f"{share:g} of the parameters": pruned,
        f"{CLUSTERS} clusters": cluster(path, calib, clusters=CLUSTERS).model,
        "both": cluster(pruned.clone(), calib, clusters=CLUSTERS).model,
    }
    before = footprint(source).deflated
    for step, model in models.items():
        size = footprint(model)
        with tempfile.TemporaryDirectory() as folder:
            artifact = api.build(model.clone(), Path(folder) / "model.gopt", check=False).bytes
        yield [
            path.stem,
            step,
            str(statistics(model).params),
            f"{size.bytes / 1e6:.3f}",
            f"{size.deflated / 1e6:.3f}",
            f"{before / size.deflated:.2f}",
            f"{artifact / 1e6:.3f}",
            _accuracy(judge.judge(model)),
        ]


def _accuracy(found: Evaluation) -> str:
    return "" if found.top1 is None else f"{100 * found.top1[1]:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, help="Most that are learned from, and judged on.")
    parser.add_argument("names", nargs="*", help="Of models; all by default.")
    chosen = parser.parse_args()
    found: list[list[str]] = []
    train, held_out = digits.load()
    for name, share in DIGITS.items():
        if name in (chosen.names or DIGITS):
            path = MODELS / f"{name}.onnx"
            parts = [_dataset(load(path), part) for part in (train, held_out)]
            found += _shown(rows(path, share, *_first(chosen.samples, parts)))
    if "GRAPHOPT_ZOO" in os.environ and SQUEEZENET in (chosen.names or [SQUEEZENET]):
        zoo = Path(os.environ["GRAPHOPT_ZOO"])
        case = next(case for case in CASES if case.model == SQUEEZENET)
        parts = _first(chosen.samples, datasets(case, zoo))
        found += _shown(rows(zoo / "models" / f"{SQUEEZENET}.onnx", SQUEEZENET_SHARE, *parts))
    print(f"\n{markdown(HEADINGS, found)}")


def _first(samples: int | None, parts: Iterable[Dataset]) -> list[Dataset]:
    """As many samples of each part."""
    return [part if samples is None else part.select(range(min(samples, len(part)))) for part in parts]


def _dataset(model: ir.Model, part: digits.Split) -> Dataset:
    """What a model of digits reads: images, rows of pixels, or pixels as tokens, all of which count."""
    tokens = part.images.reshape(len(part.images), -1).astype(np.int64)
    forms: dict[str, np.ndarray] = {
        "image": part.images,
        "rows": part.images[:, 0],
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
    }
    return Dataset({value.name or "": forms[value.name or ""] for value in model.graph.inputs}, part.labels)


def _shown(made: Iterator[list[str]]) -> Iterator[list[str]]:
    for row in made:
        print(*row, sep=" | ", flush=True)
        yield row


if __name__ == "__main__":
    main()

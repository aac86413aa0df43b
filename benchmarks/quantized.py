"""int8 models on real images: every operator within one step of ONNX Runtime, and the same top-1.

`GRAPHOPT_ZOO=... python benchmarks/quantized.py [--images 200]`
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from graphopt import api
from graphopt.accuracy.islands import verify_islands
from graphopt.accuracy.verify import reference
from graphopt.backends.targets import find_target
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.compiling.judging import part_compiler
from graphopt.feeds.data import load_dataset
from graphopt.model.variants import Binding, make_variants

MODELS = {"mobilenet_v2_1.0_224_qdq": "signed", "shufflenet-v2-12-int8": "imagenet"}
"""Model -> how its images are prepared."""

HEADINGS = (
    "model",
    "values compared",
    "largest difference in steps",
    "images",
    "same top-1",
    "ours right",
    "ORT right",
)


def judge(name: str, preprocess: str, images: int) -> list[str]:
    """One row of the table."""
    zoo = Path(os.environ["GRAPHOPT_ZOO"])
    model = make_variants(building.read(zoo / "models" / f"{name}.onnx"), Binding()).models[0]
    data = load_dataset(zoo / "data" / "imagenet_sample", list(model.graph.inputs), preprocess)
    feeds = [feed for _, feed in zip(range(images), data.batches(), strict=False)]
    labels = np.zeros(0) if data.labels is None else data.labels[: len(feeds)]
    verdict = verify_islands(
        model, part_compiler(find_target("native"), building.COMPILE_PRESET, 0), feeds[:2]
    )
    run = reference(model)
    with tempfile.TemporaryDirectory() as folder:
        compiled = api.load(api.build(model, Path(folder) / "model.gopt", check=False).path)
    ours = np.array([int(np.argmax(compiled.run(None, dict(feed))[0])) for feed in feeds])
    theirs = np.array([int(np.argmax(next(iter(run(feed).values())))) for feed in feeds])
    return [
        name,
        str(len(verdict.outputs)),
        f"{verdict.max_steps:g}" + ("" if verdict.passed else " (FAILED)"),
        str(len(feeds)),
        f"{100 * float(np.mean(ours == theirs)):.1f} %",
        f"{100 * float(np.mean(ours == labels)):.1f} %",
        f"{100 * float(np.mean(theirs == labels)):.1f} %",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    chosen = parser.parse_args()
    print(markdown(HEADINGS, [judge(name, how, chosen.images) for name, how in MODELS.items()]))


if __name__ == "__main__":
    main()

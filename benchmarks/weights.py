"""Weights alone as integers, and ranges at run time: what they cost a language model, and how small they make it.

`GRAPHOPT_ZOO=... python benchmarks/weights.py`

The negative log-likelihood is of sampled tokens that calibration has not seen; next to ours stands the round-to-nearest quantiser of ONNX
Runtime. Sizes are those of the ONNX file and of the artifact for 256 tokens.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphopt import api
from graphopt.accuracy.evaluation import Judge
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.compression.quantizing import quantize
from graphopt.feeds.data import Dataset

MODEL, TOKENS, INPUT = "stories260K_llama", "stories260K_sampled_32x256.npy", "tokens"
CALIBRATION = 8
"""Sequences, of 32."""

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "int8-weights": {"scheme": "int8-weights"},
    "int8-dynamic": {"scheme": "int8-dynamic"},
    "int4-weights, no data": {"scheme": "int4-weights"},
    "int4-weights": {"scheme": "int4-weights", "calib": True},
    "int4-weights, blocks of 16": {"scheme": "int4-weights", "calib": True, "block": 16},
}
COLUMNS = ("weights", "ONNX MB", "artifact MB", "SQNR dB", "agreement", "NLL", "change")


def likelihood(
    outputs: Mapping[str, np.ndarray], original: object, feeds: Mapping[str, np.ndarray], labels: object
) -> float:
    """The mean logarithm of the probability of every token after the first."""
    logits = next(iter(outputs.values()))[:, :-1].astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(np.take_along_axis(logarithms, feeds[INPUT][:, 1:, None], -1).mean())


def by_onnxruntime(model: Path, output: Path) -> None:
    """Four bits in blocks of 32, rounded to nearest, with zero points."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=False)
    quantizer.process()
    onnx.save(quantizer.model.model, output)


def main() -> None:
    """Print the table."""
    zoo = Path(os.environ["GRAPHOPT_ZOO"])
    model = zoo / "models" / f"{MODEL}.onnx"
    tokens = np.load(zoo / "data" / TOKENS).astype(np.int64)
    calib, test = (Dataset({INPUT: part}) for part in (tokens[:CALIBRATION], tokens[CALIBRATION:]))
    judge = Judge(building.read(model), test, metric=likelihood)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        files = {"float": model, "onnxruntime RTN int4": Path(name) / "theirs.onnx"}
        by_onnxruntime(model, files["onnxruntime RTN int4"])
        for what, recipe in RECIPES.items():
            options = {**recipe, "calib": calib if "calib" in recipe else None}
            quantize(model, output=(path := Path(name) / f"{len(files)}.onnx"), **options)
            files[what] = path
        for what, path in files.items():
            found = judge.judge(building.read(path))
            made = api.build(path, Path(name) / "a.gopt", dims={"B": 1, "T": 256}, check=False)
            assert found.metric is not None
            assert found.agreement is not None
            sizes = [f"{path.stat().st_size / 1e6:.2f}", f"{made.bytes / 1e6:.2f}"]
            quality = [f"{found.sqnr_db:.1f}", f"{100 * found.agreement:.1f} %"]
            rows.append([what, *sizes, *quality, f"{-found.metric[1]:.4f}", f"{found.drop:+.4f}"])
            print(*rows[-1], sep=" | ", flush=True)
    print(f"\n{markdown(COLUMNS, rows)}")


if __name__ == "__main__":
    main()

"""Trains and writes every model of this folder, and the manifest with their hashes and measured accuracies.

    python models/build.py [NAME ...]

Training needs torch (the perceptron only scikit-learn); using the models needs neither.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import digits

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"
MODELS = (
    "digits_mlp",
    "digits_cnn",
    "digits_depthwise",
    "digits_recurrent",
    "digits_student",
    "digits_transformer",
)


def main(names: Iterable[str]) -> None:
    """Build the named models and update their entries in the manifest."""
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    for name in names:
        manifest[name] = build(name)
        print(f"{name}: held-out accuracy {manifest[name]['accuracy']:.4f}")
    MANIFEST.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")


def build(name: str) -> dict[str, Any]:
    """Train one model, write it and return its manifest entry."""
    module = importlib.import_module(name)
    train, held_out = digits.load()
    content = module.build(train).SerializeToString(deterministic=True)
    path = FOLDER / f"{name}.onnx"
    path.write_bytes(content)
    return {
        "file": path.name,
        "script": f"{name}.py",
        "description": module.DESCRIPTION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "held_out": len(held_out.labels),
        "accuracy": round(accuracy(path, held_out), 4),
    }


def accuracy(path: Path, split: digits.Split) -> float:
    """Top-1 accuracy of a written model, run by ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    scores = session.run(None, feeds(names, split.images))[0]
    return float((scores.argmax(1) == split.labels).mean())


def feeds(names: list[str], images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The same images as each kind of model wants them: pixels, rows or tokens."""
    tokens = images.reshape(len(images), -1).astype(np.int64)
    forms: dict[str, NDArray[Any]] = {
        "image": images,
        "rows": images[:, 0],
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
    }
    return {name: forms[name] for name in names}


if __name__ == "__main__":
    main(sys.argv[1:] or MODELS)

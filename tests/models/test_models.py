"""The committed models are the ones the manifest describes, and as accurate as it says."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import build
import digits

FOLDER = Path(__file__).parents[2] / "models"
MANIFEST: dict[str, dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text())
SIZE_LIMIT = 500_000


@pytest.mark.parametrize("name", MANIFEST)
def test_file_matches_the_manifest(name: str) -> None:
    content = (FOLDER / MANIFEST[name]["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == MANIFEST[name]["sha256"]
    assert len(content) < SIZE_LIMIT
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


@pytest.mark.parametrize("name", MANIFEST)
def test_stated_accuracy(name: str) -> None:
    _, held_out = digits.load()
    measured = build.accuracy(FOLDER / MANIFEST[name]["file"], held_out)
    assert measured == pytest.approx(MANIFEST[name]["accuracy"], abs=0.5 / len(held_out.labels))
    assert measured > 0.94


def test_every_model_has_its_entry_and_script() -> None:
    assert set(MANIFEST) == set(build.MODELS) == {path.stem for path in FOLDER.glob("*.onnx")}
    assert [entry["script"] for entry in MANIFEST.values() if not (FOLDER / entry["script"]).exists()] == []


def test_splits_share_no_image() -> None:
    train, held_out = digits.load()
    assert (len(train.labels), len(held_out.labels)) == (1437, 360)
    seen = {image.tobytes() for image in train.images}
    assert [index for index, image in enumerate(held_out.images) if image.tobytes() in seen] == []
    assert np.bincount(held_out.labels).min() > 20

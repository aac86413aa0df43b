"""What models take on disk."""

import zipfile
from pathlib import Path

import numpy as np

from graphopt.compression.footprint import footprint
from graphopt.model import save
from tests.conftest import make_model


def test_bytes_and_those_of_a_zip(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).integers(0, 9, (300, 200)).astype(np.float32)
    model = make_model("agraph (float[2,300] x) => (float[2,200] y) { y = MatMul(x, w) }", w=weights)
    save(model, path := tmp_path / "model.onnx")
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path)
        [entry] = archive.infolist()
    found = footprint(model)
    assert found.bytes == path.stat().st_size
    assert abs(found.deflated - entry.compress_size) < 16

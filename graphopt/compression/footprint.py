"""What a model takes on disk: as ONNX, and as ordinary zip programs pack that."""

from __future__ import annotations

import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from graphopt.model import save

LEVEL = 9
"""That of `zip -9`."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model in ONNX, with all files that it needs, and those of the same deflated."""

    bytes: int
    deflated: int


def footprint(model: ir.Model) -> Footprint:
    """That of a model as `save` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model.onnx")
        files = [file for file in sorted(Path(folder).iterdir()) if file.is_file()]
        return Footprint(sum(file.stat().st_size for file in files), sum(_deflated(file) for file in files))


def _deflated(path: Path) -> int:
    packer, total = zlib.compressobj(LEVEL), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())

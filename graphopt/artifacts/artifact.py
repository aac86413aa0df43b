"""Writes .gopt files, and those of weights apart: uncompressed zips with fixed timestamps and members aligned to 4096 bytes.

The same input gives the same bytes. `graphopt_runtime.artifact` reads them.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from graphopt.artifacts.coding import Segment, encode
from graphopt.files import replacing_together
from graphopt_runtime.archive import ALIGNMENT
from graphopt_runtime.artifact import (
    APART,
    APART_FORMAT,
    CODED_FORMAT,
    CODING,
    COMMENT_PREFIX,
    FORMAT,
    MANIFEST,
    WEIGHTS_PREFIX,
    hash_of_weights,
)

_CHUNK_BYTES = 1 << 20
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_ZIP64_FROM_BYTES = 1 << 30
_LOCAL_HEADER_BYTES = 30
_EXTRA_HEADER_BYTES = 4
_ZIP64_EXTRA_BYTES = 20
_PADDING_ID = 0xD935
"""The extra field by which Android's tools align members too."""


@dataclass(frozen=True)
class Build:
    """What a target needs: a description of the build, code, and weights, which may be a file and are then streamed.

    Weights whose `segments` are known are coded where that makes them much smaller.
    """

    manifest: Mapping[str, Any]
    library: bytes
    weights: bytes | Path
    segments: Sequence[Segment] = ()


def write(path: str | Path, builds: Sequence[Build], apart: bool = False) -> list[dict[str, Any]]:
    """Writes an artifact and returns the descriptions of its builds, to which members and sizes are added.

    The builds come in ascending order of what they ask of their CPU. Weights that lie `apart` are in `PATH.weights`. Files
    appear under their names only when they are complete. Raises OutputError when they cannot be written.
    """
    path = Path(path)
    with replacing_together([path, weights_path(path)] if apart else [path]) as files:
        return _write(builds, *files)


def weights_path(path: Path) -> Path:
    """Where the weights of the artifact `path` are if they lie apart."""
    return Path(APART.format(path))


def _write(builds: Sequence[Build], file: IO[bytes], apart: IO[bytes] | None = None) -> list[dict[str, Any]]:
    hashes: dict[str, str] = {}
    with (
        zipfile.ZipFile(file, "w") as program,
        nullcontext(program) if apart is None else zipfile.ZipFile(apart, "w") as store,
    ):
        described = [_add_build(program, store, each, _suffix(each, builds), hashes) for each in builds]
        whole = {"format": _format(described, apart is not None), "builds": described, "hashes": hashes}
        text = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False).encode()
        digest = _add(program, MANIFEST, io.BytesIO(text), len(text))
        if store is not program:
            store.comment = WEIGHTS_PREFIX + hash_of_weights(whole).encode()
        program.comment = COMMENT_PREFIX + digest.encode()
    return described


def _format(builds: Sequence[Mapping[str, Any]], apart: bool) -> int:
    """The oldest one that says it all."""
    if apart:
        return APART_FORMAT
    return CODED_FORMAT if any(CODING in each for each in builds) else FORMAT


def _suffix(build: Build, builds: Sequence[Build]) -> str:
    """What tells the members of one of several builds apart."""
    return f".{build.manifest['target']['name']}" if len(builds) > 1 else ""


def _add_build(
    program: zipfile.ZipFile, store: zipfile.ZipFile, build: Build, suffix: str, hashes: dict[str, str]
) -> dict[str, Any]:
    library, weights = f"library{suffix}.so", f"weights{suffix}.bin"
    coded = None if isinstance(build.weights, Path) else encode(build.weights, build.segments)
    with _open(build.weights if coded is None else coded.stored) as source:
        weights_bytes = _size(source)
        hashes[library] = _add(program, library, io.BytesIO(build.library), len(build.library))
        hashes[weights] = _add(store, weights, source, weights_bytes)
    coding = {} if coded is None else {CODING: coded.coding.to_json()}
    return {
        **build.manifest,
        **coding,
        "library": library,
        "weights": weights,
        "weights_bytes": weights_bytes,
    }


@contextmanager
def _open(weights: bytes | Path) -> Iterator[BinaryIO]:
    with weights.open("rb") if isinstance(weights, Path) else io.BytesIO(weights) as source:
        yield source


def _size(source: BinaryIO) -> int:
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    return size


def _add(archive: zipfile.ZipFile, name: str, source: BinaryIO, size: int) -> str:
    """Streams `source` into an aligned member and returns its SHA-256."""
    info = zipfile.ZipInfo(name, _FIXED_TIME)
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    info.file_size = size
    large = size >= _ZIP64_FROM_BYTES
    info.extra = _padding(archive.start_dir, name, large)
    digest = hashlib.sha256()
    with archive.open(info, "w", force_zip64=large) as member:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            member.write(chunk)
    info.extra = b""  # the directory needs no padding
    return digest.hexdigest()


def _padding(offset: int, name: str, large: bool) -> bytes:
    """An extra field that makes the data of a member whose header is at `offset` start at an aligned position."""
    header = (
        _LOCAL_HEADER_BYTES + len(name.encode()) + _EXTRA_HEADER_BYTES + (_ZIP64_EXTRA_BYTES if large else 0)
    )
    padding = -(offset + header) % ALIGNMENT
    return _PADDING_ID.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)

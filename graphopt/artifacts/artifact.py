"""Writes .gopt files: uncompressed zips with fixed timestamps and members aligned to 4096 bytes.

The same input gives the same bytes. `graphopt_runtime.artifact` reads them.
"""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from graphopt.artifacts.coding import Segment, encode
from graphopt.errors import OutputError
from graphopt.files import require_replaceable
from graphopt_runtime.artifact import ALIGNMENT, CODED_FORMAT, CODING, COMMENT_PREFIX, FORMAT, MANIFEST

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


def write(path: str | Path, builds: Sequence[Build]) -> list[dict[str, Any]]:
    """Writes an artifact and returns the descriptions of its builds, to which members and sizes are added.

    The builds come in ascending order of what they ask of their CPU. The artifact appears under its name only when it is
    complete. Raises OutputError when it cannot be written.
    """
    path = Path(path)
    hashes: dict[str, str] = {}
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        described = [_add_build(archive, build, _suffix(build, builds), hashes) for build in builds]
        coded = any(CODING in each for each in described)
        whole = {"format": CODED_FORMAT if coded else FORMAT, "builds": described, "hashes": hashes}
        text = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False).encode()
        digest = _add(archive, MANIFEST, io.BytesIO(text), len(text))
        archive.comment = COMMENT_PREFIX + digest.encode()
    return described


def _suffix(build: Build, builds: Sequence[Build]) -> str:
    """What tells the members of one of several builds apart."""
    return f".{build.manifest['target']['name']}" if len(builds) > 1 else ""


def _add_build(archive: zipfile.ZipFile, build: Build, suffix: str, hashes: dict[str, str]) -> dict[str, Any]:
    library, weights = f"library{suffix}.so", f"weights{suffix}.bin"
    coded = None if isinstance(build.weights, Path) else encode(build.weights, build.segments)
    with _open(build.weights if coded is None else coded.stored) as source:
        weights_bytes = _size(source)
        hashes[library] = _add(archive, library, io.BytesIO(build.library), len(build.library))
        hashes[weights] = _add(archive, weights, source, weights_bytes)
    coding = {} if coded is None else {CODING: coded.coding.to_json()}
    return {
        **build.manifest,
        **coding,
        "library": library,
        "weights": weights,
        "weights_bytes": weights_bytes,
    }


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end, or vanishes if anything fails. Raises OutputError."""
    require_replaceable(path)
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file  # type: ignore[misc]
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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

"""Opens a .gopt file in place: an uncompressed zip whose members start at multiples of 4096 bytes.

Hashes find damage, not malice: loading an artifact runs the code in it.
"""

import hashlib
import json
import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from graphopt_runtime.errors import ArtifactError

FORMAT = 1
ALIGNMENT = 4096
MANIFEST = "manifest.json"
LIBRARY = "library.so"
WEIGHTS = "weights.bin"
COMMENT_PREFIX = b"graphopt manifest sha256:"
"""The archive comment is this prefix and the hash of the manifest, which holds the hashes of the other members."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_REQUIRED_KEYS = {"format": int, "target": dict, "variants": list, "weights_bytes": int, "hashes": dict}
_MAX_MANIFEST_BYTES = 256 << 20


@dataclass(frozen=True)
class Artifact:
    """An open artifact; `contents` maps the whole file and must outlive every use of the weights."""

    path: Path
    manifest: Mapping[str, Any]
    contents: memoryview
    members: Mapping[str, range]

    def read(self, name: str) -> memoryview:
        """The bytes of one member, without a copy."""
        span = self.members[name]
        return self.contents[span.start : span.stop]

    @property
    def library(self) -> memoryview:
        return self.read(LIBRARY)

    @property
    def weights(self) -> memoryview:
        return self.read(WEIGHTS)


def open_artifact(path: str | Path, verify: bool = True) -> Artifact:
    """Maps `path` and checks its structure, its format and the hashes of manifest and library.

    `verify` also checks the hash of the weights, which reads them all. Raises ArtifactError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            contents = _map(file, path)
            directory = _directory(file, path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    spans = _spans(directory, contents, path)
    artifact = Artifact(path, _manifest(spans, contents, directory.comment, path), contents, spans)
    _check_members(artifact)
    for name in spans.keys() - {MANIFEST} - (set() if verify else {WEIGHTS}):
        _check_hash(artifact, name)
    return artifact


def _map(file: BinaryIO, path: Path) -> memoryview:
    try:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError as error:
        raise ArtifactError(f"{path} is empty") from error


class _Directory(NamedTuple):
    """The list of members at the end of a zip, and the offset where it starts."""

    members: list[zipfile.ZipInfo]
    comment: bytes
    start: int


def _directory(file: BinaryIO, path: Path) -> _Directory:
    try:
        with zipfile.ZipFile(file) as archive:
            return _Directory(archive.infolist(), archive.comment, archive.start_dir)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise ArtifactError(f"{path} is not a graphopt artifact, or is truncated: {error}") from error


def _spans(directory: _Directory, contents: memoryview, path: Path) -> dict[str, range]:
    """Where the data of each member lies in the file."""
    spans: dict[str, range] = {}
    end = 0
    for info in sorted(directory.members, key=lambda info: info.header_offset):
        name = info.filename
        if name in spans:
            raise ArtifactError(f"{path}: member {name!r} exists twice")
        if info.header_offset < end:
            raise ArtifactError(f"{path}: member {name!r} overlaps another one")
        spans[name] = _span(info, contents, path)
        end = spans[name].stop
        if end > directory.start:
            raise ArtifactError(f"{path}: member {name!r} reaches into the directory of the file")
    return spans


def _span(info: zipfile.ZipInfo, contents: memoryview, path: Path) -> range:
    name = info.filename
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in info.orig_filename:
        raise ArtifactError(
            f"{path}: member {name!r} leaves the archive's folder; this file is not from graphopt"
        )
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ArtifactError(f"{path}: member {name!r} is compressed; artifacts must not be recompressed")
    if info.flag_bits & 1:
        raise ArtifactError(f"{path}: member {name!r} is encrypted")
    header = bytes(contents[info.header_offset : info.header_offset + 30])
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise ArtifactError(f"{path}: member {name!r} has no header where the directory says")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + 30 + name_bytes + extra_bytes
    if start % ALIGNMENT != 0:
        raise ArtifactError(
            f"{path}: member {name!r} is not aligned to {ALIGNMENT} bytes; the file was repacked"
        )
    return range(start, start + info.file_size)


def _manifest(spans: Mapping[str, range], contents: memoryview, comment: bytes, path: Path) -> dict[str, Any]:
    if MANIFEST not in spans:
        raise ArtifactError(f"{path} is not a graphopt artifact: it has no {MANIFEST}")
    span = spans[MANIFEST]
    if len(span) > _MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{path}: {MANIFEST} has {len(span)} bytes, which no model needs")
    raw = bytes(contents[span.start : span.stop])
    if comment != COMMENT_PREFIX + hashlib.sha256(raw).hexdigest().encode():
        raise ArtifactError(
            f"{path}: {MANIFEST} is damaged (its hash differs); copy or build the artifact again"
        )
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: {MANIFEST} is not JSON: {error}") from error
    return _check_format(manifest, path)


def _check_format(manifest: Any, path: Path) -> dict[str, Any]:
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ArtifactError(f"{path}: {MANIFEST} names no format")
    if manifest["format"] != FORMAT:
        raise ArtifactError(
            f"{path} has format {manifest['format']!r}, this runtime reads {FORMAT}; "
            "update graphopt-runtime or build the artifact again"
        )
    for key, kind in _REQUIRED_KEYS.items():
        if not isinstance(manifest.get(key), kind):
            raise ArtifactError(f"{path}: {MANIFEST} lacks {key!r}, or it is not a {kind.__name__}")
    return manifest


def _check_members(artifact: Artifact) -> None:
    hashed = set(artifact.manifest["hashes"]) | {LIBRARY, WEIGHTS}
    present = set(artifact.members) - {MANIFEST}
    if missing := sorted(hashed - present):
        raise ArtifactError(f"{artifact.path}: members are missing: {', '.join(missing)}")
    if unknown := sorted(present - set(artifact.manifest["hashes"])):
        raise ArtifactError(f"{artifact.path}: members without a hash in the manifest: {', '.join(unknown)}")
    size, expected = len(artifact.members[WEIGHTS]), artifact.manifest["weights_bytes"]
    if size != expected:
        raise ArtifactError(f"{artifact.path}: {WEIGHTS} has {size} bytes, the manifest says {expected}")


def _check_hash(artifact: Artifact, name: str) -> None:
    if hashlib.sha256(artifact.read(name)).hexdigest() != artifact.manifest["hashes"][name]:
        raise ArtifactError(
            f"{artifact.path}: {name} is damaged (its hash differs from the manifest's); "
            "copy or build the artifact again"
        )

"""Opens a .gopt file in place: an uncompressed zip whose members start at multiples of 4096 bytes.

It holds a library, weights and a description for each target that it was built for.

Hashes find damage, not malice: loading an artifact runs the code in it.
"""

import hashlib
import json
import mmap
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from graphopt_runtime.coding import decode, parse_coding
from graphopt_runtime.errors import ArtifactError

FORMAT = 2
CODED_FORMAT = 3
"""That of artifacts with weights in a coded form; others have `FORMAT`, which older runtimes read too."""

ALIGNMENT = 4096
MANIFEST = "manifest.json"
COMMENT_PREFIX = b"graphopt manifest sha256:"
"""The archive comment is this prefix and the hash of the manifest, which holds the hashes of the other members."""

CODING = "coding"
"""What a build with coded weights says about them."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_REQUIRED_KEYS = {"format": int, "builds": list, "hashes": dict}
_REQUIRED_OF_BUILDS = {"target": dict, "variants": list, "weights_bytes": int, "library": str, "weights": str}
_MAX_MANIFEST_BYTES = 256 << 20


Manifest = Mapping[str, Any]
"""What a build says about itself."""


@dataclass(frozen=True)
class Artifact:
    """An open artifact and one of its builds; `contents` maps the whole file and must outlive every use of the weights."""

    path: Path
    builds: Sequence[Manifest]
    manifest: Manifest
    contents: memoryview
    members: Mapping[str, range]

    def read(self, name: str) -> memoryview:
        """The bytes of one member, without a copy."""
        span = self.members[name]
        return self.contents[span.start : span.stop]

    @property
    def library(self) -> memoryview:
        return self.read(self.manifest["library"])

    @property
    def weights(self) -> memoryview:
        """In place, or decoded. Raises ArtifactError where that fails."""
        stored = self.read(self.manifest["weights"])
        if CODING not in self.manifest:
            return stored
        return decode(stored, parse_coding(self.manifest[CODING], len(stored)), str(self.path))


def last_build(builds: Sequence[Manifest], path: Path) -> Manifest:
    """The one that asks most of its CPU."""
    return builds[-1]


def open_artifact(
    path: str | Path,
    verify: bool = True,
    choose: Callable[[Sequence[Manifest], Path], Manifest] = last_build,
) -> Artifact:
    """Maps `path`, checks its structure, its format and the hash of its manifest, and `choose`s a build.

    The hash of that build's library is checked, and with `verify` that of its weights, which reads them all. Raises
    ArtifactError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            contents = _map(file, path)
            directory = _directory(file, path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    spans = _spans(directory, contents, path)
    whole = _manifest(spans, contents, directory.comment, path)
    _check_members(whole, spans, path)
    artifact = Artifact(path, whole["builds"], choose(whole["builds"], path), contents, spans)
    for name in [artifact.manifest["library"], *([artifact.manifest["weights"]] if verify else [])]:
        _check_hash(artifact, name, whole["hashes"][name])
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
    if manifest["format"] not in (FORMAT, CODED_FORMAT):
        raise ArtifactError(
            f"{path} has format {manifest['format']!r}, this runtime reads {FORMAT} and {CODED_FORMAT}; "
            "update graphopt-runtime or build the artifact again"
        )
    _check_keys(manifest, _REQUIRED_KEYS, MANIFEST, path)
    if not manifest["builds"]:
        raise ArtifactError(f"{path}: {MANIFEST} lists no builds")
    for build in manifest["builds"]:
        _check_keys(build if isinstance(build, dict) else {}, _REQUIRED_OF_BUILDS, "a build", path)
    return manifest


def _check_keys(found: Manifest, required: Mapping[str, type], what: str, path: Path) -> None:
    for key, kind in required.items():
        if not isinstance(found.get(key), kind):
            raise ArtifactError(f"{path}: {what} lacks {key!r}, or it is not a {kind.__name__}")


def _check_members(manifest: Manifest, spans: Mapping[str, range], path: Path) -> None:
    used = {build[role] for build in manifest["builds"] for role in ("library", "weights")}
    present = set(spans) - {MANIFEST}
    if missing := sorted((set(manifest["hashes"]) | used) - present):
        raise ArtifactError(f"{path}: members are missing: {', '.join(missing)}")
    if unknown := sorted(present - set(manifest["hashes"])):
        raise ArtifactError(f"{path}: members without a hash in the manifest: {', '.join(unknown)}")
    for build in manifest["builds"]:
        size, expected = len(spans[build["weights"]]), build["weights_bytes"]
        if size != expected:
            raise ArtifactError(f"{path}: {build['weights']} has {size} bytes, the manifest says {expected}")
        if CODING in build:
            _check_coding(build, size, path)


def _check_coding(build: Manifest, size: int, path: Path) -> None:
    try:
        parse_coding(build[CODING], size)
    except ValueError as error:
        raise ArtifactError(f"{path}: the coding of {build['weights']} makes no sense: {error}") from error


def _check_hash(artifact: Artifact, name: str, digest: str) -> None:
    if hashlib.sha256(artifact.read(name)).hexdigest() != digest:
        raise ArtifactError(
            f"{artifact.path}: {name} is damaged (its hash differs from the manifest's); "
            "copy or build the artifact again"
        )

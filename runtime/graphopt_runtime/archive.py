"""Maps uncompressed zips whose members start at multiples of 4096 bytes."""

import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from graphopt_runtime.errors import ArtifactError

ALIGNMENT = 4096

_LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True)
class Archive:
    """An open archive; `contents` maps the whole file and must outlive every use of its members."""

    path: Path
    contents: memoryview
    members: Mapping[str, range]
    comment: bytes

    def read(self, name: str) -> memoryview:
        """The bytes of one member, without a copy."""
        span = self.members[name]
        return self.contents[span.start : span.stop]


def open_archive(path: Path) -> Archive:
    """Maps `path` and checks its structure. Raises ArtifactError."""
    try:
        with path.open("rb") as file:
            contents = _map(file, path)
            directory = _directory(file, path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    return Archive(path, contents, _spans(directory, contents, path), directory.comment)


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

"""Types of command-line parameters: files that are there, files to write, and what is wrong with them at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from graphopt.errors import ArtifactError, ModelError, OutputError
from graphopt.files import require_replaceable

ZIP_MAGIC = b"PK"


class _Existing(click.Path):
    """A regular file that is there: a pipe or a device could be read for ever."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = _as_path(super().convert(value, param, ctx))
        if not path.is_file():
            self.fail(f"{path} is not a regular file.", param, ctx)
        return path


class _OnnxModel(_Existing):
    """An ONNX model. Raises ModelError for an artifact."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if is_artifact(path):
            raise ModelError(
                f"{path} is a compiled artifact already; give the ONNX model that it was made from"
            )
        return path


class _Artifact(_Existing):
    """A compiled model. Raises ArtifactError for anything else."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if not is_artifact(path):
            raise ArtifactError(f"{path} is not a graphopt artifact; `graphopt compile MODEL.onnx` makes one")
        return path


class _Output(click.Path):
    """A file to write. Raises OutputError at once if it cannot be, so that nobody waits for a result in vain."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = _as_path(super().convert(value, param, ctx))
        require_writable(path)
        return path


def _as_path(value: str | bytes | os.PathLike[str]) -> Path:
    return Path(os.fsdecode(value))


class _JsonTarget(_Output):
    """A file to write, or - for standard output, as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # type: ignore[override]
        return "-" if value == "-" else str(super().convert(value, param, ctx))


FILE = _Existing()
ONNX_MODEL = _OnnxModel()
ARTIFACT = _Artifact()
OUTPUT = _Output()
FOLDER = click.Path(file_okay=False, path_type=Path)
DATA = click.Path(exists=True, path_type=Path)
JSON = _JsonTarget()


def is_artifact(path: Path) -> bool:
    """Whether a file looks like a .gopt file, which is a zip; no ONNX model is one."""
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def require_writable(path: Path, folder: bool = False) -> None:
    """Raises OutputError if a file, or a `folder`, cannot be made there: the other one is there, or what it is to be in is
    missing or read-only."""
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {parent}")
    if path.is_dir() and not folder:
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if not path.is_dir():
        require_replaceable(path)
    if path.is_file() and folder:
        raise OutputError(f"cannot write {path}: it is a file; give the name of a folder")
    if not os.access(path if path.is_dir() else parent, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {parent} is read-only")

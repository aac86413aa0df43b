"""What a program in C needs of an artifact: a build's library, its weights as the library reads them, and the header."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path

from graphopt.errors import OutputError, TargetError
from graphopt.files import replacing_together
from graphopt_runtime.artifact import Manifest, open_artifact

HEADER = "graphopt.h"


def unpack(path: Path, folder: Path, target: str | None = None) -> list[Path]:
    """Writes library.so, weights.bin and graphopt.h of the build for `target`, which may be left out where there is one build.

    Weights that the artifact codes are decoded. Raises ArtifactError, TargetError and OutputError.
    """
    opened = open_artifact(path, choose=partial(_build_for, target=target))
    header = resources.files("graphopt_runtime") / "csrc" / HEADER
    contents: dict[str, bytes | memoryview] = {
        "library.so": opened.library,
        "weights.bin": opened.weights,
        HEADER: header.read_bytes(),
    }
    _make(folder)
    paths = [folder / name for name in contents]
    with replacing_together(paths) as files:
        for file, content in zip(files, contents.values(), strict=True):
            file.write(content)
    return paths


def _build_for(builds: Sequence[Manifest], path: Path, target: str | None) -> Manifest:
    names = [str(build["target"].get("name")) for build in builds]
    if target is None and len(builds) == 1:
        return builds[0]
    if target not in names:
        wanted = "say for which target" if target is None else f"there is no build for {target!r}"
        raise TargetError(f"{path}: {wanted}; it was built for {', '.join(names)}")
    return builds[names.index(target)]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error

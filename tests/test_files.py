"""Files are written whole or not at all; devices and pipes are never replaced by what is written to their name."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphopt.artifacts import artifact
from graphopt.errors import OutputError
from graphopt.files import replacing_together
from graphopt.model import save
from tests.cli.conftest import invoke
from tests.conftest import make_model

MODEL = make_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) }")
SHIPPED = Path(__file__).parents[1] / "models/digits_mlp.onnx"


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    os.mkfifo(path := tmp_path / "pipe")
    yield path
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("write", [lambda path: save(MODEL, path), lambda path: artifact.write(path, [])])
def test_writing_is_refused(write: Callable[[Path], object], pipe: Path) -> None:
    with pytest.raises(OutputError, match="no regular file"):
        write(pipe)


@pytest.mark.parametrize("command", ["compile", "optimize"])
def test_commands_say_so_at_once(command: str, pipe: Path) -> None:
    assert "no regular file" in invoke(command, SHIPPED, "-o", pipe, code=2).stderr


def renew(paths: list[Path]) -> None:
    with replacing_together(paths) as files:
        for file in files:
            file.write(b"new")


@pytest.mark.parametrize(("failing", "named"), [(1, "a"), (2, "b")])
def test_files_that_belong_together_stay_as_they_were_together(
    failing: int, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("old")
    calls = iter(range(1, 9))

    def fsync(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("graphopt.files.os.fsync", fsync)
    with pytest.raises(OutputError, match=rf"cannot write [^,]*/{named}: No space left"):
        renew(paths)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old", "old"]

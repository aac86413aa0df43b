"""Devices and pipes are never replaced by what is written to their name."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphopt.artifacts import artifact
from graphopt.errors import OutputError
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

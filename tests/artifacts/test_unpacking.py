"""What a program in C gets of an artifact."""

import ctypes
import mmap
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt import api
from graphopt.artifacts import artifact
from graphopt.artifacts.unpacking import unpack
from graphopt.errors import OutputError, TargetError
from graphopt_runtime.artifact import CODING, open_artifact
from tests.cli.conftest import invoke, invoke_json
from tests.conftest import make_model


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a product with few values, so that its weights are coded."""
    path = tmp_path_factory.mktemp("coded") / "m.gopt"
    weights = np.random.default_rng(0).integers(-2, 3, (64, 512)).astype(np.float32)
    text = "agraph (float[1,64] x) => (float[1,512] y) { y = MatMul(x, w) }"
    api.build(make_model(text, w=weights), path, check=False)
    assert CODING in open_artifact(path).manifest
    return path


def test_the_library_runs_on_the_weights_as_they_are_written(coded: Path, tmp_path: Path) -> None:
    library, weights, header = unpack(coded, tmp_path / "c")
    x = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    assert b"graphopt_create" in header.read_bytes()
    with graphopt.load(coded) as loaded:
        np.testing.assert_array_equal(run_library(library, weights, x, 512), loaded(x)[0][0])


def run_library(library: Path, weights: Path, x: np.ndarray, size: int) -> np.ndarray:
    """What a program in C does: the only result, of so many floats, for the only input."""
    code, y = ctypes.CDLL(str(library)), np.zeros(size, np.float32)
    code.graphopt_create.restype = ctypes.c_void_p
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        model = ctypes.c_void_p(code.graphopt_create(ctypes.c_void_p(start), 1))
        inputs, outputs = ((ctypes.c_void_p * 1)(array.ctypes.data) for array in (x, y))
        assert code.graphopt_run(model, 0, inputs, outputs) == 0
        code.graphopt_destroy(model)
    return y


def test_one_of_several_builds(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    builds = [
        artifact.Build({"name": "m", "target": {"name": name}, "variants": []}, name.encode(), b"")
        for name in ("a", "b")
    ]
    artifact.write(path, builds)
    assert unpack(path, tmp_path / "c", "b")[0].read_bytes() == b"b"
    with pytest.raises(TargetError, match="say for which target; it was built for a, b"):
        unpack(path, tmp_path / "c")
    with pytest.raises(TargetError, match="no build for 'x'; it was built for a, b"):
        unpack(path, tmp_path / "c", "x")


def test_a_folder_that_cannot_be_made_is_reported(coded: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot make the folder .*nowhere/c: No such file"):
        unpack(coded, tmp_path / "nowhere" / "c")


def test_from_the_command_line(coded: Path) -> None:
    files = invoke_json("unpack", coded)["files"]
    assert files == [str(coded.parent / "m" / name) for name in ("library.so", "weights.bin", "graphopt.h")]
    assert invoke("unpack", coded, "-o", coded.parent / "m").stdout.strip() == ", ".join(files)
    assert "is a file" in invoke("unpack", coded, "-o", coded, code=2).stderr

"""`--recover`, the last step of the commands that give up accuracy."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.conftest import invoke, invoke_json

pytest.importorskip("torch")
from tests.training.distillation.harness import MODELS, digits

MODEL = MODELS / "digits_mlp.onnx"

COMMANDS = {
    "prune": ["--macs", 0.3, "--no-correct"],
    "cluster": ["--clusters", 4, "--techniques", "none"],
    "sparsify": ["--pattern", "2:4", "--no-compensate"],
    "quantize": ["--scheme", "int4-weights", "--techniques", "none"],
}


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    data = digits()
    np.savez(tmp_path / "calib.npz", image=data.columns["image"], labels=data.labels)
    return tmp_path / "calib.npz"


def arguments(name: str, folder: Path, *more: object) -> list[object]:
    return [name, MODEL, *COMMANDS[name], "-o", folder / "out.onnx", *more]


@pytest.mark.parametrize("name", COMMANDS)
def test_another_row_shows_what_was_won_back(name: str, calib: Path, tmp_path: Path) -> None:
    done = invoke(*arguments(name, tmp_path, "--calib", calib, "--recover", 0.02))
    assert "recovered" in done.stdout
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)


def test_json_has_both_qualities_and_zeros_stay(calib: Path, tmp_path: Path) -> None:
    content = invoke_json(*arguments("sparsify", tmp_path, "--calib", calib, "--recover", 0.03))
    found = content["recovery"]
    assert found["kept"]
    assert found["after"]["sqnr_db"] > found["before"]["sqnr_db"]
    assert found["after"] == content["evaluation"]
    assert found["rounds"][found["best_round"]]["held_out"] < found["rounds"][0]["held_out"]
    arrays = [numpy_helper.to_array(each) for each in onnx.load(tmp_path / "out.onnx").graph.initializer]
    assert sum(int((array == 0).sum()) for array in arrays if array.ndim == 2) >= content["zeros"]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recover", "1"], "--recover needs --calib DATA"),
        (["--calib", "calib.npz", "--recover", "0"], "give a number of minutes above 0"),
        (["--calib", "calib.npz", "--recover", "-1"], "give a number of minutes above 0"),
        (["--calib", "calib.npz", "--recover", "soon"], "not a valid float"),
    ],
)
def test_bad_requests(
    name: str, more: list[str], message: str, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(calib.parent)
    assert message in invoke(*arguments(name, tmp_path, *more), code=2).stderr
    assert not (tmp_path / "out.onnx").exists()


def test_without_torch_it_says_what_to_install(calib: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from graphopt.cli.main import main\nmain([str(each) for each in sys.argv[1:]])"
    )
    given = map(str, arguments("cluster", tmp_path, "--calib", calib, "--recover", 1))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'graphopt[torch]'" in done.stderr
    assert not (tmp_path / "out.onnx").exists()

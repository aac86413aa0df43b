"""`graphopt distill`, also killed and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphopt.model import load, save
from tests.cli.conftest import invoke, invoke_json

pytest.importorskip("torch")
from tests.training.distillation.harness import digits, disturbed, floats, shipped


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a student, its teacher, and data with labels."""
    teacher, data = shipped("digits_mlp"), digits()
    save(teacher, tmp_path / "teacher.onnx")
    save(disturbed(teacher), tmp_path / "student.onnx")
    np.savez(tmp_path / "data.npz", image=data.columns["image"], labels=data.labels)
    return tmp_path


def arguments(files: Path, *more: object) -> list[object]:
    options = ["--teacher", files / "teacher.onnx", "--data", files / "data.npz", "-o", files / "out.onnx"]
    return ["distill", files / "student.onnx", *options, *more]


def test_a_student_learns(files: Path) -> None:
    done = invoke(*arguments(files, "--epochs", 15))
    assert "held-out loss" in done.stdout
    assert "15.0 epochs" in done.stdout
    assert (files / "out.onnx").exists()
    assert not (files / "out.onnx.checkpoint").exists()


def test_json_has_the_rounds(files: Path) -> None:
    more = ("--epochs", 12, "--labels", "--alpha", 0.3, "--augment", "none", "--eval", files / "data.npz")
    content = invoke_json(*arguments(files, *more))
    assert content["best_round"] > 0
    assert content["augmentation"] == []
    assert content["compared"][0]["weight"] == 0.7
    assert content["after"]["top1"][1] >= content["before"]["top1"][1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "a"], "write auto, or STUDENT=TEACHER"),
        (["--augment", "spin"], "unknown augmentation 'spin'"),
        (["--epochs", 1, "--minutes", 1], "either a number of epochs or minutes"),
        (["--temperature", 0], "temperature of 0"),
        (["--features", "q=q", "--epochs", 1], "inside the student is called 'q'"),
    ],
)
def test_options_that_make_no_sense(files: Path, more: list[object], message: str) -> None:
    assert message in invoke(*arguments(files, *more), code=2).stderr
    assert not (files / "out.onnx").exists()


def test_without_torch_it_says_what_to_install(files: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from graphopt.cli.main import main\nmain([str(each) for each in sys.argv[1:]])"
    )
    command = [sys.executable, "-P", "-c", code, *map(str, arguments(files, "--epochs", 1))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'graphopt[torch]'" in done.stderr
    assert not (files / "out.onnx").exists()


def test_killed_and_started_again_it_comes_to_the_same(files: Path) -> None:
    command = [sys.executable, "-m", "graphopt", *map(str, arguments(files, "--epochs", 60))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    whole = (files / "out.onnx").read_bytes()
    (files / "out.onnx").unlink()
    checkpoint = files / "out.onnx.checkpoint"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (files / "out.onnx").exists()
    assert checkpoint.exists()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert (files / "out.onnx").read_bytes() == whole
    assert not checkpoint.exists()


def test_two_processes_learn_what_one_does(files: Path) -> None:
    """Each takes half of every batch; sums in another order differ in their last bits."""
    more = ("--epochs", 10, "--augment", "none", "--batch", 32)
    invoke(*arguments(files, *more))
    alone = floats(load(files / "out.onnx"))
    (files / "out.onnx").unlink()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "graphopt", *map(str, arguments(files, *more, "--json", files / "out.json"))]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    start = floats(load(files / "student.onnx"))
    for name, array in floats(load(files / "out.onnx")).items():
        np.testing.assert_allclose(array, alone[name], rtol=0, atol=1e-4)
        assert array.size < 2 or np.abs(array - start[name]).max() > 1e-3
    assert (files / "out.json").exists()
    assert not (files / "out.onnx.checkpoint").exists()

"""`graphopt sparsify`."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sklearn.datasets import load_digits

from tests.cli.conftest import invoke, invoke_json

MODEL = Path(__file__).parents[2] / "models/digits_mlp.onnx"


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    images = load_digits().images[:200].astype(np.float32).reshape(200, 1, 8, 8)
    np.savez(tmp_path / "calib.npz", image=images, labels=load_digits().target[:200])
    return tmp_path / "calib.npz"


def test_sparsify_then_compile(calib: Path, tmp_path: Path) -> None:
    output = tmp_path / "sparse.onnx"
    done = invoke("sparsify", MODEL, "--ratio", "0.5", "--calib", calib, "-o", output)
    assert "50.0 %" in done.stdout
    assert "top-1" in done.stdout
    arrays = [numpy_helper.to_array(each) for each in onnx.load(output).graph.initializer]
    assert all((array == 0).mean() >= 0.5 for array in arrays if array.ndim == 2)
    assert "max_rel_err" in invoke("compile", output, "-o", tmp_path / "a.gopt").stdout


def test_json_has_the_zeros_of_each_layer(calib: Path, tmp_path: Path) -> None:
    options = ["--pattern", "2:4", "--criterion", "wanda", "--calib", calib, "--metric", "top1"]
    content = invoke_json("sparsify", MODEL, *options, "-o", tmp_path / "sparse.onnx")
    assert content["zeros"] == sum(layer["zeros"] for layer in content["layers"])
    assert {layer["share"] for layer in content["layers"]} == {0.5}
    assert content["evaluation"]["metric"]


def test_without_data_it_says_what_is_missing(tmp_path: Path) -> None:
    done = invoke("sparsify", MODEL, "--ratio", "0.3", "--global", "-o", tmp_path / "sparse.onnx")
    assert "not evaluated" in done.stdout
    assert "nothing makes up" in done.stderr
    quiet = invoke("sparsify", MODEL, "--ratio", "0.3", "--no-compensate", "-o", tmp_path / "sparse.onnx")
    assert "nothing makes up" not in quiet.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say how many"),
        (["--ratio", "1.0"], "between 0 and 1"),
        (["--ratio", "0.5", "--exclude", "*"], "nothing in this model"),
        (["--ratio", "0.5", "--criterion", "wanda"], "needs calibration data"),
    ],
)
def test_bad_requests(options: list[str], message: str, tmp_path: Path) -> None:
    done = invoke("sparsify", MODEL, *options, "-o", tmp_path / "sparse.onnx", code=2)
    assert message in done.stderr
    assert not (tmp_path / "sparse.onnx").exists()

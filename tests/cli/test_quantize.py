"""`graphopt quantize`, and `compile --quantize`."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.cli.conftest import invoke, invoke_json

MODEL = Path(__file__).parents[2] / "models/digits_mlp.onnx"


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    images = load_digits().images[:100].astype(np.float32).reshape(100, 1, 8, 8)
    np.savez(tmp_path / "calib.npz", image=images, labels=load_digits().target[:100])
    return tmp_path / "calib.npz"


def test_quantize_then_compile(calib: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    done = invoke("quantize", MODEL, "--calib", calib, "-o", output)
    assert "top-1" in done.stdout
    assert output.stat().st_size < MODEL.stat().st_size / 2
    assert "sums of Gemm" in invoke("compile", output, "-o", tmp_path / "a.gopt").stdout


def test_json_has_the_cost(calib: Path, tmp_path: Path) -> None:
    content = invoke_json("quantize", MODEL, "--calib", calib, "-o", tmp_path / "small.onnx")
    assert content["quantized_nodes"] > 1
    assert content["evaluation"]["samples"] > 50


def test_compile_quantizes_first(calib: Path, tmp_path: Path) -> None:
    done = invoke("compile", MODEL, "--quantize", "int8", "--calib", calib, "-o", tmp_path / "a.gopt")
    assert "int8:" in done.stderr
    assert "sums of Gemm" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantize", "int8"], "needs --calib"),
        (["--exclude", "Conv"], "only with --quantize"),
    ],
)
def test_options_that_do_not_fit(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in invoke("compile", MODEL, *options, "-o", tmp_path / "a.gopt", code=2).stderr
    assert not (tmp_path / "a.gopt").exists()


def test_a_backend_given_twice_is_refused(tmp_path: Path) -> None:
    result = invoke("compare", MODEL, "--backend", "graphopt", "--backend", "graphopt", code=2)
    assert "given twice" in result.stderr

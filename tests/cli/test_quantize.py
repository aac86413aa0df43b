"""`graphopt quantize`, and `compile --quantize`."""

from pathlib import Path

import numpy as np
import onnx
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
    assert "quantised:" in done.stderr
    assert "sums of Gemm" in done.stdout
    assert "100.0 % of multiply-adds on integers" in done.stdout


def test_weights_alone_need_no_data(tmp_path: Path) -> None:
    done = invoke("quantize", MODEL, "--scheme", "int4-weights", "-o", tmp_path / "small.onnx")
    assert "not evaluated" in done.stdout


def test_a_search_is_shown_and_resumed(calib: Path, tmp_path: Path) -> None:
    output, options = (
        tmp_path / "small.onnx",
        ["--calib", calib, "--max-drop", "0.0000001", "--metric", "cosine"],
    )
    done = invoke("quantize", MODEL, *options, "-o", output)
    assert "layers on floats" in done.stdout
    journal = tmp_path / "small.onnx.search"
    lines = journal.read_text().splitlines()
    assert len(lines) > 3
    content = invoke_json("quantize", MODEL, *options, "-o", output)
    assert journal.read_text().splitlines() == lines
    assert content["search"]["float_layers"]
    other = invoke("quantize", MODEL, *options, "--method", "entropy", "-o", output, code=2)
    assert "another search" in other.stderr


def test_layers_by_pattern(calib: Path, tmp_path: Path) -> None:
    plain = ["--calib", calib, "--techniques", "none", "-o", tmp_path / "small.onnx"]
    kinds = []
    for layer in ([], ["--layer", "MatMul=int8-weights"]):
        content = invoke_json("quantize", MODEL, *plain, *layer)
        assert content["techniques"] == []
        kinds.append(
            "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
        )
    assert kinds == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantize", "int8"], "needs --calib"),
        (["--exclude", "Conv"], "--exclude: only with --quantize, --cluster or --prune"),
        (["--max-drop", "0", "--layer", "a=float"], "--layer, --max-drop: only with --quantize"),
        (["--preprocess", "unit", "--method", "mse"], "--method: only with --quantize"),
        (["--quantize", "int8-weights", "--exclude", "Typo*"], "matches 'Typo*'"),
        (["--quantize", "int8-weights", "--layer", "Conv"], "PATTERN=SCHEME"),
        (["--quantize", "int8-weights", "--journal", "j"], "--journal goes with --max-drop"),
        (["--quantize", "int8-weights", "--metric", "loss"], "unknown metric"),
    ],
)
def test_options_that_do_not_fit(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in invoke("compile", MODEL, *options, "-o", tmp_path / "a.gopt", code=2).stderr
    assert not (tmp_path / "a.gopt").exists()


def test_a_backend_given_twice_is_refused(tmp_path: Path) -> None:
    result = invoke("compare", MODEL, "--backend", "graphopt", "--backend", "graphopt", code=2)
    assert "given twice" in result.stderr

"""`graphopt cluster`, and `compile --cluster`."""

from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import invoke, invoke_json
from tests.cli.test_quantize import MODEL, calib

__all__ = ["calib"]


def test_cluster_then_compile(calib: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    done = invoke("cluster", MODEL, "--clusters", 16, "--calib", calib, "-o", output)
    assert "top-1" in done.stdout
    assert "reconstruct" in done.stdout
    assert output.stat().st_size < MODEL.stat().st_size / 3
    invoke("compile", output, "-o", tmp_path / "a.gopt")


def test_json_has_sizes_and_cost(calib: Path, tmp_path: Path) -> None:
    content = invoke_json(
        "cluster", MODEL, "--eval", calib, "--metric", "top5", "-o", tmp_path / "small.onnx"
    )
    assert content["before"]["bytes"] > 2 * content["after"]["bytes"]
    assert content["before"]["deflated"] > 3 * content["after"]["deflated"]
    assert content["after"]["bytes"] == (tmp_path / "small.onnx").stat().st_size
    assert content["weights"] == sum(tensor["weights"] for tensor in content["tensors"])
    assert content["evaluation"]["metric"][0] == 100
    assert content["techniques"] == []


def test_a_search_is_shown(calib: Path, tmp_path: Path) -> None:
    options = ["--calib", calib, "--max-drop", 5, "--techniques", "none"]
    assert "drop" in invoke("cluster", MODEL, *options, "-o", tmp_path / "small.onnx").stdout


def test_without_data_the_cost_is_not_known(tmp_path: Path) -> None:
    assert "not evaluated" in invoke("cluster", MODEL, "-o", tmp_path / "small.onnx").stdout


def test_compile_clusters_first(calib: Path, tmp_path: Path) -> None:
    done = invoke("compile", MODEL, "--cluster", 16, "--calib", calib, "-o", tmp_path / "a.gopt")
    assert "clustered:" in done.stderr
    assert "reconstruct" in done.stdout
    assert "when loaded" in invoke("inspect", tmp_path / "a.gopt").stdout


def test_compile_clusters_and_quantises(calib: Path, tmp_path: Path) -> None:
    options = ["--cluster", 32, "--quantize", "int8", "--calib", calib]
    done = invoke("compile", MODEL, *options, "-o", tmp_path / "a.gopt")
    assert "clustered:" in done.stderr
    assert "100.0 % of multiply-adds on integers" in done.stdout


def test_what_optimize_makes_of_it(tmp_path: Path) -> None:
    invoke("cluster", MODEL, "-o", tmp_path / "small.onnx")
    invoke("optimize", tmp_path / "small.onnx", "-o", tmp_path / "again.onnx")
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("small", "again")]
    assert sizes[1] <= 1.02 * sizes[0]
    assert "Gather" in {node.op_type for node in onnx.load(tmp_path / "again.onnx").graph.node}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clusters", 0], "0 clusters"),
        (["--clusters", 8, "--sqnr", 20], "not both"),
        (["--max-drop", 1], "needs --eval or --calib"),
        (["--exclude", "Typo*"], "matches 'Typo*'"),
        (["--entropy", "-1"], "the weight of the entropy"),
    ],
)
def test_requests_that_make_no_sense(options: list[object], message: str, tmp_path: Path) -> None:
    assert message in invoke("cluster", MODEL, *options, "-o", tmp_path / "small.onnx", code=2).stderr
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster", 0], "0 clusters"),
        (["--cluster", 8, "--max-drop", 1], "--max-drop: only with --quantize"),
        (["--preprocess", "unit"], "--preprocess: only with --quantize, --cluster or --prune"),
    ],
)
def test_options_of_compile_that_do_not_fit(options: list[object], message: str, tmp_path: Path) -> None:
    assert message in invoke("compile", MODEL, *options, "-o", tmp_path / "a.gopt", code=2).stderr
    assert not (tmp_path / "a.gopt").exists()

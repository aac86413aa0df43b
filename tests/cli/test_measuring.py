"""`bench` and `compare`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import invoke, invoke_json

QUICK = ("--runs", 2, "--blocks", 1)
FIELDS = {
    "median_ms", "p10_ms", "p90_ms", "load_ms", "peak_rss_mb", "precision", "max_abs_err", "max_rel_err",
}  # fmt: skip


def test_bench_an_artifact(artifact: Path) -> None:
    content = invoke_json("bench", artifact, *QUICK)
    assert content["runs"] == 2
    assert content["backends"]["graphopt"]["median_ms"] > 0


def test_bench_a_model(onnx_file: Path) -> None:
    content = invoke_json("bench", onnx_file, *QUICK, "--dim", "batch=3")
    assert content["backends"]["graphopt"]["max_rel_err"] < 1e-5


@pytest.mark.parametrize("file", ["artifact", "onnx_file"])
def test_bench_streams(file: str, request: pytest.FixtureRequest) -> None:
    content = invoke_json("bench", request.getfixturevalue(file), *QUICK, "--streams", 3)
    assert content["streams"] == 3
    assert content["calls"] == 6
    assert content["calls_per_s"] > 0


def test_streams_as_a_table(artifact: Path) -> None:
    assert "calls/s" in invoke("bench", artifact, *QUICK, "--streams", 2).stdout


def test_bench_per_layer(onnx_file: Path) -> None:
    content = invoke_json("bench", onnx_file, *QUICK, "--per-layer", "--dim", "batch=3")
    assert content["layers"]
    assert content["total_ms"] == pytest.approx(sum(layer["median_ms"] for layer in content["layers"]))
    assert content["total_ms"] > 0
    assert sum(layer["macs"] for layer in content["layers"]) == 3 * 4 * 3
    assert all(0 <= layer["of_peak"] < 2 for layer in content["layers"])
    assert content["peak_gbytes_s"] > 0
    assert content["peer_total_ms"] > 0
    assert [layer["peer_ms"] is not None for layer in content["layers"]] == [
        layer["macs"] > 0 for layer in content["layers"]
    ]
    assert "share" in invoke("bench", onnx_file, *QUICK, "--per-layer").stdout


def test_bench_per_layer_as_a_page_and_as_a_trace(onnx_file: Path) -> None:
    page, trace = onnx_file.parent / "layers.html", onnx_file.parent / "layers.trace"
    invoke("bench", onnx_file, *QUICK, "--per-layer", "--html", page, "--trace", trace)
    text = page.read_text()
    assert "<svg" in text
    assert "gemm: " in text
    assert "http" not in text
    events = json.loads(trace.read_text())["traceEvents"]
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in events)


def test_a_page_of_layers_needs_layers(onnx_file: Path) -> None:
    page = onnx_file.parent / "layers.html"
    assert "--per-layer" in invoke("bench", onnx_file, *QUICK, "--html", page, code=2).stderr


def test_an_artifact_has_no_times_per_layer(artifact: Path) -> None:
    result = invoke("bench", artifact, *QUICK, "--per-layer", code=2)
    assert "compiled without profiling" in result.stderr


def test_compare(onnx_file: Path) -> None:
    backends = ("--backend", "graphopt", "--backend", "onnxruntime")
    content = invoke_json("compare", onnx_file, *backends, *QUICK, "--threads", 1)
    assert set(content) == {"model", "threads", "runs", "backends"}
    assert content["threads"] == 1
    assert list(content["backends"]) == ["graphopt", "onnxruntime"]
    assert all(set(one) == FIELDS for one in content["backends"].values())
    assert content["backends"]["graphopt"]["max_rel_err"] < 1e-5


def test_compare_every_tensor(onnx_file: Path) -> None:
    backends = ("--backend", "graphopt", "--backend", "onnxruntime")
    content = invoke_json("compare", onnx_file, *backends, *QUICK, "--layers")
    for name in ("graphopt", "onnxruntime"):
        found = content["layers"][name]
        assert found["first"] is None
        assert len(found["tensors"]) >= 2
        assert all(each["within_tolerance"] and each["node"] for each in found["tensors"])
    text = invoke("compare", onnx_file, *backends, *QUICK, "--layers").stdout
    assert "first over its tolerance" in text


def test_compare_with_an_artifact(onnx_file: Path, artifact: Path) -> None:
    backend = ("--backend", f"graphopt={artifact}", "--dim", "batch=2")
    content = invoke_json("compare", onnx_file, *backend, *QUICK)
    assert content["backends"]["graphopt"]["max_rel_err"] < 1e-5


def test_one_backend_that_fails_does_not_disturb_the_others(onnx_file: Path, artifact: Path) -> None:
    backends = ("--backend", f"graphopt={artifact}", "--backend", "onnxruntime", "--dim", "batch=5")
    content = invoke_json("compare", onnx_file, *backends, *QUICK)
    assert "not compiled for the shapes" in content["backends"]["graphopt"]["error"]
    assert content["backends"]["onnxruntime"]["median_ms"] > 0


def test_no_backend_at_all(onnx_file: Path, artifact: Path) -> None:
    result = invoke(
        "compare", onnx_file, "--backend", f"graphopt={artifact}", "--dim", "batch=5", *QUICK, code=2
    )
    assert "no backend could run the model" in result.stderr


@pytest.mark.slow
def test_interrupted_from_a_terminal(artifact: Path) -> None:
    """Ctrl-C reaches every process of the terminal's group; the backends' own must not answer with a traceback."""
    command = [sys.executable, "-P", "-m", "graphopt", "bench", str(artifact), "--runs", "1000000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0)
    assert process.stderr is not None
    assert "measure" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert said.splitlines() == ["graphopt: interrupted; nothing was written"]


def test_page(onnx_file: Path) -> None:
    page = onnx_file.parent / "page.html"
    invoke("compare", onnx_file, "--backend", "onnxruntime", "--html", page, *QUICK)
    assert "onnxruntime" in page.read_text()

"""`inspect`, `targets`, `passes`, `doctor`, and what all commands have in common."""

import subprocess
import sys
from pathlib import Path

import pytest

from graphopt import api
from graphopt.cli.main import main
from tests.cli.conftest import invoke, invoke_json


def test_inspect_a_model(onnx_file: Path) -> None:
    content = invoke_json("inspect", onnx_file)
    assert list(content) == ["nodes", "ops", "params", "bytes", "macs", "inputs", "outputs"]
    assert content["ops"] == {"Add": 1, "Identity": 1, "MatMul": 1, "Relu": 1}
    assert (content["nodes"], content["params"], content["bytes"], content["macs"]) == (4, 15, 60, 12)
    assert content["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]


def test_inspect_a_model_as_tables(onnx_file: Path) -> None:
    shown = invoke("inspect", onnx_file).stdout
    assert "batch x 4" in shown
    assert "MatMul" in shown


def test_inspect_an_artifact(artifact: Path) -> None:
    content = invoke_json("inspect", artifact)
    assert content["bytes"] == artifact.stat().st_size
    assert content["variants"][0]["inputs"][0]["shape"] == [2, 4]
    assert content["verification"] == {"verified": True}


def test_inspect_the_kernels_of_an_artifact(artifact: Path) -> None:
    assert "kernels in order" in invoke("inspect", artifact, "--kernels").stdout
    assert "kernels in order" not in invoke("inspect", artifact).stdout


def test_targets() -> None:
    rows = invoke_json("targets")["targets"]
    assert sum("(native)" in row["target"] for row in rows) == 1
    assert "x86-64-v3" in invoke("targets").stdout


def test_passes() -> None:
    infos = {info["name"]: info for info in invoke_json("passes")["passes"]}
    assert set(infos["fold"]["options"]) == {"max_growth"}
    assert infos["cleanup"]["presets"] == ["O1", "O2", "O3"]
    assert all(info["summary"].endswith(".") for info in infos.values())
    assert "max_growth=" in invoke("passes").stdout


def test_doctor() -> None:
    checks = invoke_json("doctor")["checks"]
    assert all(check["ok"] for check in checks)
    assert "C compiler" in invoke("doctor").stdout


def test_doctor_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.backends.codegen.toolchain import runtime_objects

    monkeypatch.setenv("PATH", "")
    runtime_objects.cache_clear()
    assert "no C compiler" in invoke("doctor", code=1).stdout


def test_optimize(onnx_file: Path) -> None:
    smaller = onnx_file.parent / "smaller.onnx"
    content = invoke_json("optimize", onnx_file, "-o", smaller)
    assert content["nodes_after"] < content["nodes_before"]
    assert content["bytes"] == smaller.stat().st_size
    assert content["verification"]["passed"]


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_has_an_example(command: str) -> None:
    shown = invoke(command, "--help").stdout
    assert "Example:" in shown
    assert f"graphopt {command}" in shown
    assert "--json FILE" in shown or command == "cmake-dir"
    paragraphs = shown.split("Options:")[0].splitlines()[2:]
    assert {len(line) - len(line.lstrip()) for line in paragraphs if line} <= {2, 4}


def test_a_bug_of_ours_is_called_that(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(api, "build", build)
    shown = invoke("compile", onnx_file, code=2).stderr
    assert "KeyError: 'surprise'" in shown
    assert "bug of graphopt" in shown
    with pytest.raises(KeyError):
        main(["--traceback", "compile", str(onnx_file)], standalone_mode=False)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (OSError(28, "No space left on device", "/tmp/x"), "No space left on device"),
    ],
)
def test_exhausted_machine(
    error: Exception, message: str, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(api, "build", build)
    shown = invoke("compile", onnx_file, code=2).stderr
    assert message in shown
    assert "bug" not in shown


def test_a_reader_that_goes_away() -> None:
    command = f"{sys.executable} -P -m graphopt passes | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_real_process() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "graphopt", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("graphopt, version ")

"""Models for other machines from the command line: built, run, compared, judged; and boards."""

import subprocess
from pathlib import Path

import pytest

from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run
from graphopt.backends.quality import cannot_judge
from graphopt.backends.targets import find_target
from tests.cli.conftest import invoke, invoke_json

TARGET = find_target("aarch64")


@pytest.fixture
def foreign(onnx_file: Path) -> Path:
    """An artifact for another machine."""
    if (reason := cannot_run(TARGET) or missing_compiler(TARGET.compiler)) is not None:
        pytest.skip(reason)
    path = onnx_file.with_suffix(".gopt")
    assert "under qemu-aarch64" in invoke("compile", onnx_file, "--target", TARGET.name, "-o", path).stdout
    return path


def test_run(foreign: Path) -> None:
    done = invoke("run", foreign)
    assert "runs under qemu-aarch64" in done.stderr
    assert "float32" in done.stdout


def test_compare(onnx_file: Path, foreign: Path) -> None:
    """Results, and no times."""
    options = ("--backend", f"graphopt={foreign}", "--backend", "onnxruntime", "--runs", 2, "--blocks", 1)
    found = invoke_json("compare", onnx_file, *options)["backends"]
    ours = found["graphopt"]
    assert (ours["median_ms"], ours["p90_ms"], ours["precision"]) == (
        None,
        None,
        "float32 under qemu-aarch64",
    )
    assert ours["max_rel_err"] < 1e-4
    assert found["onnxruntime"]["median_ms"] > 0
    page = foreign.with_suffix(".html")
    assert " - " in invoke("compare", onnx_file, *options, "--html", page).stdout
    assert page.exists()


def test_bench_judges_loops(foreign: Path) -> None:
    if (reason := cannot_judge(TARGET)) is not None:
        pytest.skip(reason)
    content = invoke_json("bench", foreign)
    assert content["target"] == TARGET.name
    assert "median_ms" not in content
    assert "loops" in invoke_json("inspect", foreign, "--kernels")
    assert "loops" not in invoke_json("inspect", foreign)


def test_a_board(artifact: Path, tmp_path: Path) -> None:
    program = tmp_path / "graphopt-device"
    assert "--port 7420" in invoke("device", "-o", program).stdout
    with subprocess.Popen([program, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = f"127.0.0.1:{process.stdout.readline().split()[-1]}"
        assert f"runs on {place}" in invoke("run", artifact, "--device", place).stderr
        assert invoke_json("bench", artifact, "--device", place, "--runs", 3, "--blocks", 1)["runs"] == 3
        process.kill()
    assert "cannot connect" in invoke("run", artifact, "--device", place, code=2).stderr


def test_export(onnx_file: Path) -> None:
    folder = onnx_file.parent / "exported"
    content = invoke_json("compile", onnx_file, "--emit", "static", "--name", "rows", "-o", folder)
    assert content["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert (folder / "lib" / "librows.a").exists()
    assert content["weights"] is None
    content = invoke_json("compile", onnx_file, "--emit", "static", "--separate-weights", "-o", folder)
    assert Path(content["weights"]).stat().st_size > 0
    assert Path(invoke("cmake-dir").stdout.strip(), "graphoptConfig.cmake").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "x"), "--name: only with --emit"),
        (("--name", "x", "--single-thread"), "--name, --single-thread: only with --emit"),
        (("--emit", "static", "--name", "a b"), "'a b' is no name in C"),
        (("--emit", "static", "-o", "FILE"), "it is a file; give the name of a folder"),
    ],
)
def test_export_refuses(onnx_file: Path, options: tuple[str, ...], message: str) -> None:
    given = [onnx_file if option == "FILE" else option for option in options]
    assert message in invoke("compile", onnx_file, *given, code=2).stderr

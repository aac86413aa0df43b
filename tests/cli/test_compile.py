import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.model import save
from tests.cli.conftest import invoke, invoke_json
from tests.conftest import make_model


def test_artifact_beside_the_model_by_default(onnx_file: Path) -> None:
    result = invoke("compile", onnx_file)
    assert sorted(file.name for file in onnx_file.parent.iterdir()) == ["mlp.gopt", "mlp.onnx"]
    assert "mlp.gopt" in result.stdout.splitlines()[-1]
    assert "max_rel_err" in result.stdout


def test_a_first_dimension_set_to_1_is_announced(onnx_file: Path) -> None:
    assert "'batch' set to 1" in invoke("compile", onnx_file).stderr
    assert "set to 1" not in invoke("compile", onnx_file, "--dim", "batch=1").stderr


def test_json(onnx_file: Path) -> None:
    content = invoke_json("compile", onnx_file, "-o", onnx_file.parent / "a.gopt")
    assert content["artifact"].endswith("a.gopt")
    assert content["bytes"] == (onnx_file.parent / "a.gopt").stat().st_size
    assert content["nodes_before"] == 4
    assert content["verification"]["passed"]


def test_separate_weights(onnx_file: Path) -> None:
    path, weights = onnx_file.with_suffix(".gopt"), onnx_file.with_suffix(".gopt.weights")
    content = invoke_json("compile", onnx_file, "--separate-weights")
    assert content["weights"] == str(weights)
    assert content["bytes"] == path.stat().st_size + weights.stat().st_size
    assert "y" in invoke("run", path).stdout
    assert invoke_json("inspect", path)["bytes"] == content["bytes"]
    elsewhere = weights.rename(onnx_file.parent / "elsewhere")
    with graphopt.load(path, weights=elsewhere) as model:
        model(np.ones((1, 4), np.float32))
    assert "was compiled with separate weights, and there is no" in invoke("run", path, code=2).stderr


def test_a_place_for_separate_weights_is_needed_before_anything_is_compiled(onnx_file: Path) -> None:
    onnx_file.with_suffix(".gopt.weights").mkdir()
    result = invoke("compile", onnx_file, "--separate-weights", code=2)
    assert "mlp.gopt.weights: it is a folder; give the name of a file" in result.stderr
    assert not onnx_file.with_suffix(".gopt").exists()


def test_json_to_a_file_comes_with_tables(onnx_file: Path) -> None:
    target = onnx_file.parent / "report.json"
    assert "cleanup" in invoke("compile", onnx_file, "--json", target).stdout
    assert json.loads(target.read_text())["kernels"] > 0


def test_variants(onnx_file: Path) -> None:
    invoke("compile", onnx_file, "--dim", "batch=2,4,8")
    with graphopt.load(onnx_file.with_suffix(".gopt")) as model:
        for rows in (2, 4, 8):
            (y,) = model(np.ones((rows, 4), np.float32))
            assert y.shape == (rows, 3)


def test_real_inputs_serve_the_variant_they_fit(onnx_file: Path) -> None:
    np.save(onnx_file.parent / "any_name.npy", np.ones((4, 4), np.float32))
    invoke("compile", onnx_file, "--dim", "batch=2,4", "--input", onnx_file.parent / "any_name.npy")


def test_input_shape(onnx_file: Path) -> None:
    invoke("compile", onnx_file, "--input-shape", "x=5,4")
    with graphopt.load(onnx_file.with_suffix(".gopt")) as model:
        assert model.get_inputs()[0].shape == [5, 4]


def test_bound_inputs_are_gone(tmp_path: Path) -> None:
    save(
        make_model("g (float[2,3] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }"),
        tmp_path / "m.onnx",
    )
    invoke("compile", tmp_path / "m.onnx", "--bind", "s=3,2")
    with graphopt.load(tmp_path / "m.gopt") as model:
        assert [value.name for value in model.get_inputs()] == ["x"]
        assert model(np.zeros((2, 3), np.float32))[0].shape == (3, 2)


def test_bind_to_a_file(tmp_path: Path) -> None:
    save(make_model("g (float[3] x, float[3] w) => (float[3] y) { y = Mul(x, w) }"), tmp_path / "m.onnx")
    np.save(tmp_path / "w.npy", np.float32([1, 2, 3]))
    invoke("compile", tmp_path / "m.onnx", "--bind", f"w={tmp_path / 'w.npy'}")
    with graphopt.load(tmp_path / "m.gopt") as model:
        np.testing.assert_array_equal(model(np.ones(3, np.float32))[0], np.float32([1, 2, 3]))


def test_unverified_on_demand(onnx_file: Path) -> None:
    assert "not verified: verification was switched off" in invoke("compile", onnx_file, "--no-verify").stdout


def test_passes_can_be_dumped_and_cut_short(onnx_file: Path) -> None:
    dumps = onnx_file.parent / "dumps"
    invoke("compile", onnx_file, "--dump", dumps, "--stop-after", "3")
    assert (dumps / "000-input.onnxtxt").exists()
    assert len(list(dumps.iterdir())) > 1


def test_a_wrong_result_names_the_first_node(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.backends.lower import arithmetic, table
    from graphopt.backends.lower.operator import Pointwise

    add, sub = arithmetic.OPERATORS["Add"], arithmetic.OPERATORS["Sub"]
    assert isinstance(add, Pointwise)
    monkeypatch.setitem(table.ONNX_OPERATORS, "Add", sub)
    result = invoke("compile", onnx_file, "--preset", "O0", code=1)
    assert "differs from ONNX Runtime: output 'y'" in result.stderr
    assert "(Add)" in result.stderr
    assert not onnx_file.with_suffix(".gopt").exists()


def start_elsewhere(source: Path, folder: Path, hash_seed: int) -> subprocess.Popen[bytes]:
    folder.mkdir()
    command = [
        sys.executable,
        "-P",
        "-m",
        "graphopt",
        "compile",
        source,
        "-o",
        "m.gopt",
        "--dim",
        "batch=2,4",
    ]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(onnx_file: Path) -> None:
    folders = [onnx_file.parent / "a", onnx_file.parent / "b"]
    processes = [start_elsewhere(onnx_file, folder, seed) for seed, folder in enumerate(folders, 1)]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = ((folder / "m.gopt").read_bytes() for folder in folders)
    assert first == second


def test_precision(onnx_file: Path) -> None:
    invoke("compile", onnx_file, "--precision", "bf16", "--target", "x86-64-v2", "--keep-float", "Conv")
    message = invoke("compile", onnx_file, "--keep-float", "Conv", code=2).output
    assert "--keep-float: only with --precision bf16, fp16 or tf32" in message
    message = invoke("compile", onnx_file, "--precision", "fp16", "--target", "aarch64", code=2).output
    assert "aarch64 has no arithmetic on float16; these have: aarch64:cortex-a76" in message
    both = ("--precision", "bf16", "--quantize", "int8", "--calib", onnx_file.parent)
    assert "exclude each other" in invoke("compile", onnx_file, *both, code=2).output

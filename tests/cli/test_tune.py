"""`graphopt tune`, and the options of `compile` that use what it finds."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import invoke, invoke_json


def test_tune_then_compile(onnx_file: Path) -> None:
    database = onnx_file.with_suffix(".tune")
    done = invoke("tune", onnx_file, "--trials", 20)
    assert "gemm" in done.stdout
    assert "trials" in done.stdout.splitlines()[-1]
    tuned = onnx_file.parent / "tuned.gopt"
    invoke("compile", onnx_file, "--tune-db", database, "--require-tuned", "-o", tuned)
    first = tuned.read_bytes()
    invoke("compile", onnx_file, "--tune-db", database, "-o", tuned)
    assert tuned.read_bytes() == first


def test_compile_tunes_first(onnx_file: Path) -> None:
    invoke("compile", onnx_file, "--tune", 10, "--threads", 1)
    assert onnx_file.with_suffix(".gopt").exists()
    assert len(onnx_file.with_suffix(".tune").read_text().splitlines()) > 1


def test_json_says_what_was_gained(onnx_file: Path) -> None:
    content = invoke_json("tune", onnx_file, "--trials", 10, "--db", onnx_file.parent / "x.tune")
    assert 0 < content["best_us"] <= content["rule_us"]
    assert content["tasks"][0]["schedule"]


def test_a_required_schedule_that_is_missing_is_named(onnx_file: Path) -> None:
    database = onnx_file.parent / "db.tune"
    invoke("tune", onnx_file, "--trials", 10, "--db", database)
    options = ("--tune-db", database, "--require-tuned", "--dim", "batch=2")
    result = invoke("compile", onnx_file, *options, code=2)
    assert "gemm batch=1 m=2 n=3 k=4" in result.stderr
    assert not onnx_file.with_suffix(".gopt").exists()


def test_schedules_of_another_target_do_not_count(onnx_file: Path) -> None:
    database = onnx_file.parent / "db.tune"
    invoke("tune", onnx_file, "--trials", 10, "--db", database)
    options = ("--tune-db", database, "--require-tuned", "--target", "x86-64-v2")
    assert "target x86-64-v2" in invoke("compile", onnx_file, *options, code=2).stderr


def test_options_that_do_not_fit_each_other(onnx_file: Path) -> None:
    assert "--tune-db" in invoke("compile", onnx_file, "--require-tuned", code=2).stderr
    missing = onnx_file.parent / "none.tune"
    assert "no tuning database" in invoke("compile", onnx_file, "--tune-db", missing, code=2).stderr
    other = onnx_file.parent / "other.json"
    other.write_text(json.dumps({"some": "file"}))
    for command in (("tune", onnx_file, "--db", other), ("compile", onnx_file, "--tune-db", other)):
        assert "not a tuning database" in invoke(*command, code=2).stderr
    assert other.read_text() == json.dumps({"some": "file"})


@pytest.mark.slow
def test_tune_on_ray(onnx_file: Path) -> None:
    pytest.importorskip("ray")
    database = onnx_file.parent / "ray.tune"
    content = invoke_json("tune", onnx_file, "--trials", 10, "--db", database, "--ray", "local")
    assert content["tasks"][0]["schedule"]
    invoke("compile", onnx_file, "--tune-db", database, "--require-tuned")


def test_tune_on_a_ray_cluster_that_is_none(onnx_file: Path) -> None:
    pytest.importorskip("ray")
    assert "no address of Ray" in invoke("tune", onnx_file, "--ray", "somewhere", code=2).stderr
    assert not onnx_file.with_suffix(".tune").exists()

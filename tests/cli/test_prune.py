"""`graphopt prune`, and `compile --prune`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.backends.targets import native
from graphopt.compression.latency import Latency, Meter
from graphopt.compression.pruning_targets import PROBES
from graphopt.model import load, save, statistics
from tests.cli.conftest import invoke, invoke_json
from tests.cli.test_quantize import MODEL, calib
from tests.conftest import make_model

__all__ = ["calib"]

FIRST = "node_product0"
"""The group of 64 channels; the other one has 32."""


def widths(content: dict[str, Any]) -> list[tuple[int, int]]:
    """Channels of each group, before and after."""
    return [(group["before"], group["after"]) for group in content["groups"].values()]


def test_prune_then_compile(calib: Path, tmp_path: Path) -> None:
    output = tmp_path / "smaller.onnx"
    done = invoke("prune", MODEL, "--ratio", 0.5, "--calib", calib, "-o", output)
    assert "left by correlation" in done.stdout
    assert "top-1" in done.stdout
    assert output.stat().st_size < MODEL.stat().st_size / 2
    onnx.checker.check_model(onnx.load(output), full_check=True)
    assert "max_rel_err" in invoke("compile", output, "-o", tmp_path / "a.gopt").stdout


@pytest.mark.parametrize(("target", "measure"), [("macs", "macs"), ("params", "params"), ("size", "bytes")])
@pytest.mark.parametrize("manner", [[], ["--global"]], ids=["uniform", "global"])
def test_a_share_is_left(target: str, measure: str, manner: Sequence[object], tmp_path: Path) -> None:
    output = tmp_path / "smaller.onnx"
    options = [f"--{target}", 0.6, "--round-to", 1, *manner]
    steps = invoke_json("prune", MODEL, *options, "-o", output)["steps"]
    assert 0.5 < steps["removed"][measure] / steps["original"][measure] <= 0.6
    assert getattr(statistics(load(output)), measure) == steps["removed"][measure]


def test_json_has_widths_and_cost(calib: Path, tmp_path: Path) -> None:
    options = ["--ratio", 0.5, "--calib", calib, "--eval", calib, "--metric", "top5"]
    content = invoke_json("prune", MODEL, *options, "-o", tmp_path / "smaller.onnx")
    assert widths(content) == [(64, 32), (32, 16)]
    assert [each["size"] for each in content["whole"]] == [10]
    assert list(content["steps"]) == ["original", "removed", "corrected"]
    cost = content["steps"]["corrected"]["evaluation"]
    assert cost["samples"] == 96
    assert cost["metric"][0] == 100
    assert cost["sqnr_db"] > content["steps"]["removed"]["evaluation"]["sqnr_db"]


def test_each_step_is_made_up_for(calib: Path, tmp_path: Path) -> None:
    options = ["--params", 0.4, "--steps", 2, "--calib", calib]
    steps = invoke_json("prune", MODEL, *options, "-o", tmp_path / "smaller.onnx")["steps"]
    assert list(steps) == ["original", "removed 1", "corrected 1", "removed 2", "corrected 2"]
    shares = [step["params"] / steps["original"]["params"] for step in steps.values()]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] <= 0.4 < shares[1]


def test_nothing_is_made_up_for_on_request(calib: Path, tmp_path: Path) -> None:
    options = ["--ratio", 0.5, "--no-correct", "--calib", calib]
    content = invoke_json("prune", MODEL, *options, "-o", tmp_path / "smaller.onnx")
    assert list(content["steps"]) == ["original", "removed"]


def test_without_data_the_cost_is_not_known(tmp_path: Path) -> None:
    done = invoke("prune", MODEL, "--ratio", 0.5, "-o", tmp_path / "smaller.onnx")
    assert "left by l2; not evaluated" in done.stdout
    assert "nothing makes up" in done.stderr


@pytest.mark.parametrize(("multiple", "expected"), [(1, [38, 19]), (4, [40, 20]), (16, [32, 16])])
def test_widths_are_multiples(multiple: int, expected: list[int], tmp_path: Path) -> None:
    options = ["--ratio", 0.4, "--round-to", multiple]
    content = invoke_json("prune", MODEL, *options, "-o", tmp_path / "smaller.onnx")
    assert [after for _, after in widths(content)] == expected


def test_a_protected_layer_keeps_its_channels(tmp_path: Path) -> None:
    options = ["--ratio", 0.5, "--protect", FIRST]
    content = invoke_json("prune", MODEL, *options, "-o", tmp_path / "smaller.onnx")
    assert FIRST not in content["groups"]
    assert widths(content) == [(32, 16)]


def test_groups_are_shown_and_nothing_is_written(tmp_path: Path) -> None:
    done = invoke("prune", MODEL, "--groups")
    assert "96 channels in 2 groups may go; 1 weights stay whole" in done.stdout
    assert "it is the output 'probabilities'" in done.stdout
    content = invoke_json("prune", MODEL, "--groups", "-o", tmp_path / "never.onnx")
    assert [group["channels"] for group in content["groups"]] == [64, 32]
    assert content["whole"][0]["reason"] == "it is the output 'probabilities'"
    assert not (tmp_path / "never.onnx").exists()


def test_groups_as_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "groups.dot"
    invoke("prune", MODEL, "--groups", "--picture", picture)
    assert re.search(f'"{FIRST}" -> "node_product1" .*: 64"', picture.read_text())


def test_a_picture_beside_a_smaller_model(tmp_path: Path) -> None:
    picture, output = tmp_path / "groups.dot", tmp_path / "smaller.onnx"
    content = invoke_json("prune", MODEL, "--ratio", 0.5, "--picture", picture, "-o", output)
    assert widths(content) == [(64, 32), (32, 16)]
    assert picture.read_text().startswith("digraph")
    assert output.exists()


def test_compile_prunes_first(calib: Path, tmp_path: Path) -> None:
    done = invoke("compile", MODEL, "--prune", 0.5, "--calib", calib, "-o", tmp_path / "a.gopt")
    assert "pruned: 42.1 % of multiply-adds" in done.stderr
    assert "corrected" in done.stdout
    invoke("compile", MODEL, "-o", tmp_path / "whole.gopt")
    assert (tmp_path / "a.gopt").stat().st_size < (tmp_path / "whole.gopt").stat().st_size


def test_compile_leaves_whole_what_is_excluded(tmp_path: Path) -> None:
    done = invoke("compile", MODEL, "--prune", 0.5, "--exclude", FIRST, "-o", tmp_path / "a.gopt")
    assert "node_product1" in done.stdout
    assert FIRST not in done.stdout


def test_compile_prunes_clusters_and_quantises(calib: Path, tmp_path: Path) -> None:
    options = ["--prune", 0.5, "--cluster", 32, "--quantize", "int8", "--calib", calib]
    done = invoke("compile", MODEL, *options, "-o", tmp_path / "a.gopt")
    places = [done.stderr.index(f"{title}: ") for title in ("pruned", "clustered", "quantised")]
    assert places == sorted(places)
    assert "100.0 % of multiply-adds on integers" in done.stdout


def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Latencies that are the shares of parameters in place of a measurement; gives those that were asked for."""
    asked: list[float] = []
    before = statistics(load(MODEL)).params

    def compare(meter: Meter, model: ir.Model) -> Latency:
        asked.append(statistics(model).params / before)
        return Latency(2.0, 2 * asked[-1], asked[-1], 0.9 * asked[-1], 1.1 * asked[-1])

    monkeypatch.setattr(Meter, "compare", compare)
    return asked


@pytest.mark.parametrize("manner", [[], ["--global"], ["--latency-aware"]], ids=str)
def test_a_share_of_latency_is_left(
    manner: Sequence[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = quick(monkeypatch)
    content = invoke_json("prune", MODEL, "--latency", 0.6, *manner, "-o", tmp_path / "smaller.onnx")
    assert 0.4 < content["latency"]["share"] <= 0.6
    assert content["latency"]["share"] == asked[-1]
    assert len(asked) <= PROBES + 1
    assert (tmp_path / "smaller.onnx").exists()


def test_a_share_of_latency_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    done = invoke("prune", MODEL, "--latency", 0.01, "-o", tmp_path / "never.onnx", code=2)
    assert re.search(r"0\.01 of latency cannot be reached .* 0\.\d+ would be left at least", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_latency_is_told_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = quick(monkeypatch)
    options = ["--ratio", 0.5, "-o", tmp_path / "smaller.onnx"]
    assert invoke_json("prune", MODEL, *options)["latency"] is None
    assert not asked
    done = invoke("prune", MODEL, *options, "--latency-aware")
    assert "% of latency" in done.stdout
    assert len(asked) == 1


def test_a_last_measurement_above_the_target_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.59, 0.63])
    monkeypatch.setattr(Meter, "compare", lambda meter, model: Latency(1.0, 0.6, next(shares), 0.5, 0.7))
    done = invoke("prune", MODEL, "--latency", 0.6, "-o", tmp_path / "smaller.onnx")
    assert "the last measurement is above the target" in done.stderr


def test_widths_fill_vectors_where_kernels_are_asked(tmp_path: Path) -> None:
    """Measured in earnest. The second group's reader gains from single channels too."""
    lanes = native().core.lanes
    options = ["--macs", 0.6, "--latency-aware", "--round-to", 1, "-o", tmp_path / "smaller.onnx"]
    content = invoke_json("prune", MODEL, *options)
    before, after = widths(content)[0]
    assert after < before
    assert after % lanes == 0
    assert min(content["latency"].values()) > 0


def test_layers_go(calib: Path, tmp_path: Path) -> None:
    output = tmp_path / "shorter.onnx"
    arguments = ["prune", MODEL, "--layers", 1, "--calib", calib, "--samples", 64, "-o", output]
    done = invoke(*arguments)
    assert "left by what changes the outputs least" in done.stdout
    assert "SQNR in dB by then" in done.stdout
    content = invoke_json(*arguments, "--no-correct")
    assert list(content["steps"]) == ["original", "removed"]
    assert len(content["layers"]) == 1
    assert content["steps"]["removed"]["macs"] < content["steps"]["original"]["macs"]


BAD: dict[str, list[object]] = {
    "a ratio of 1:": ["--ratio", "1.0"],
    "a ratio of nan:": ["--ratio", "nan"],
    "a ratio of -0.5:": ["--ratio", "-0.5"],
    "0 of macs cannot be left": ["--macs", 0],
    "nan of params cannot be left": ["--params", "nan"],
    "inf of size cannot be left": ["--size", "inf"],
    "0.01 of params cannot be reached": ["--params", 0.01],
    "0 of latency cannot be left": ["--latency", 0],
    "1.5 of latency cannot be left": ["--latency", 1.5],
    "nan of latency cannot be left": ["--latency", "nan"],
    "give one of --ratio, --macs, --params, --size, --latency": ["--latency", 0.5, "--macs", 0.5],
    "--layers needs --calib": ["--layers", 1],
    "0 layers are none": ["--layers", 0],
    "give one of --ratio, --macs, --params, --size, --latency, --layers": ["--layers", 1, "--ratio", 0.5],
    "--global, --round-to: not with --layers": ["--layers", 1, "--global", "--round-to", 4],
    "'0' is not a size": ["--ratio", 0.5, "--dim", "N=0"],
    "write NAME=VALUE": ["--ratio", 0.5, "--dim", "N"],
    "say how much: give one of --ratio": [],
    "give one of --ratio, --macs": ["--ratio", 0.5, "--macs", 0.5],
    "no node or operator of the model matches 'Typo*'": ["--ratio", 0.5, "--protect", "Typo*"],
    "every group of channels is protected": ["--ratio", 0.5, "--protect", "*"],
    "the importance taylor needs --calib": ["--ratio", 0.5, "--importance", "taylor"],
    "the importance entropy needs --calib": ["--ratio", 0.5, "--importance", "entropy"],
    "0 steps are none": ["--ratio", 0.5, "--steps", 0],
    "a seed of -1 is none": ["--ratio", 0.5, "--seed", -1],
    "every group of channels is protected, nothing": ["--ratio", 0.5, "--protect", "Relu"],
    "a multiple of 1 or more": ["--ratio", 0.5, "--round-to", 0],
    "unknown metric": ["--ratio", 0.5, "--metric", "beauty"],
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize("more", [[], ["--picture", "groups.dot"]], ids=["", "picture"])
def test_requests_that_make_no_sense(
    message: str, more: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("prune", MODEL, *BAD[message], *more, "-o", "never.onnx", "--json", "never.json", code=2)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("graphopt: ")]
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [[], ["--picture", "groups.dot"]], ids=["", "picture"])
def test_the_smaller_model_needs_a_name(
    more: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("prune", MODEL, "--ratio", 0.5, *more, code=2)
    assert "name the smaller model with -o, or ask for --groups" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["-o", "--picture", "--json"])
def test_what_is_written_needs_a_folder(option: str, tmp_path: Path) -> None:
    missing = tmp_path / "none" / "file"
    done = invoke("prune", MODEL, "--ratio", 0.5, option, missing, code=2)
    assert f"cannot write {missing}: there is no folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (text := tmp_path / "model.onnx").write_text("hello, I am no model\n")
    done = invoke("prune", text, "--ratio", 0.5, "-o", tmp_path / "never.onnx", code=2)
    assert "not an ONNX model" in done.stderr
    assert not (tmp_path / "never.onnx").exists()


def test_a_model_of_outputs_alone_has_nothing_to_lose(tmp_path: Path) -> None:
    text = "agraph (float[2,3] x) => (float[2,8] y) { y = MatMul(x, w) }"
    save(make_model(text, w=np.ones((3, 8), np.float32)), tmp_path / "model.onnx")
    options = ["--ratio", 0.5, "-o", tmp_path / "never.onnx"]
    done = invoke("prune", tmp_path / "model.onnx", *options, code=2)
    assert "no channel of this model can be removed" in done.stderr
    assert "it is the output 'y'" in done.stderr
    assert not (tmp_path / "never.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune", 1], "a ratio of 1:"),
        (["--prune", "nan"], "a ratio of nan:"),
        (["--prune", 0.5, "--method", "mse"], "--method: only with --quantize"),
        (["--prune", 0.5, "--exclude", "Typo*"], "matches 'Typo*'"),
        (["--samples", 10], "--samples: only with --quantize, --cluster or --prune"),
    ],
)
def test_options_of_compile_that_do_not_fit(options: list[object], message: str, tmp_path: Path) -> None:
    assert message in invoke("compile", MODEL, *options, "-o", tmp_path / "a.gopt", code=2).stderr
    assert list(tmp_path.iterdir()) == []

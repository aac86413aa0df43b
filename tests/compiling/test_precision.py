"""Compiling in halves: what is told of it, what it may cost, and who is refused."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from graphopt import api
from graphopt.accuracy.verify import rounded_tolerance
from graphopt.backends.targets import find_target, runs_here
from graphopt.compiling.precision import Rounding, make_room, multiplying, prepare
from graphopt.errors import GraphoptError, VerificationError
from graphopt.model import normalise
from graphopt.passes.precision import BFLOAT16, FLOAT16, Precision
from graphopt_runtime.artifact import open_artifact
from tests.conftest import make_model, random_feeds

TARGET = "x86-64-v4-bf16"
TEXT = """g (float[16,128] x) => (float[16,96] y) {
    a = MatMul(x, v) b = Relu(a) c = MatMul(b, w) y = Add(c, d) }"""
RNG = np.random.default_rng(8)
WEIGHTS = {
    "v": RNG.standard_normal((128, 128)).astype(np.float32),
    "w": RNG.standard_normal((128, 96)).astype(np.float32),
    "d": RNG.standard_normal(96).astype(np.float32),
}


def model(opset: int = 18) -> ir.Model:
    return make_model(TEXT, opset, **WEIGHTS)


@pytest.fixture
def here() -> None:
    if reason := runs_here(find_target(TARGET)):
        pytest.skip(reason)


@pytest.mark.usefixtures("here")
def test_a_build_tells_its_precision(tmp_path: Path) -> None:
    done = api.build(model(), tmp_path / "m.gopt", f"x86-64-v4,{TARGET}", precision="bf16")
    older, newer = open_artifact(tmp_path / "m.gopt").builds
    assert (older.get("precision"), newer.get("precision")) == (None, "bfloat16")
    assert older["report"]["applied"].get("round operands") is None
    assert newer["report"]["applied"]["round operands"] == 2
    assert done.verdict.passed
    assert done.verdict.max_rel_err > 1e-4
    assert done.notices == [
        "x86-64-v4: all of it in float32, as this target does not multiply bfloat16",
        f"{TARGET}: 2 of 2 convolutions and products multiply bfloat16",
    ]


@pytest.mark.usefixtures("here")
def test_results_are_sums_of_rounded_operands(tmp_path: Path) -> None:
    feeds = random_feeds(model())
    api.build(model(), tmp_path / "m.gopt", TARGET, precision="bf16")

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(ml_dtypes.bfloat16).astype(np.float32)

    hidden = np.maximum(rounded(feeds["x"]) @ rounded(WEIGHTS["v"]), 0)
    with api.load(tmp_path / "m.gopt") as compiled:
        (y,) = compiled.run(None, feeds)
    expected = rounded(hidden) @ rounded(WEIGHTS["w"]) + WEIGHTS["d"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.usefixtures("here")
def test_old_models_are_brought_to_an_opset_with_bfloat16(tmp_path: Path) -> None:
    done = api.build(model(9), tmp_path / "m.gopt", TARGET, precision="bf16")
    assert done.notices == [f"{TARGET}: 2 of 2 convolutions and products multiply bfloat16"]


def test_float32_is_untouched() -> None:
    source = model(9)
    make_room([source], "fp32")
    prepared = prepare([source], find_target(TARGET), "fp32", ())
    assert source.opset_imports[""] == 9
    assert prepared.models == [source]
    assert (prepared.precision, prepared.notice) == ("float32", "")
    assert prepared.tolerance(0, source, []) == 0


def test_a_rounded_copy_leaves_the_model_as_it_was() -> None:
    source = model()
    prepared = prepare([source], find_target(TARGET), "bf16", ["node"])
    assert prepared.precision == "bfloat16"
    assert "Cast" not in [node.op_type for node in source.graph]


def test_nodes_that_are_kept(tmp_path: Path) -> None:
    prepared = prepare([model()], find_target(TARGET), "bf16", ["MatMul"])
    assert prepared.precision == "float32"
    assert prepared.notice == f"{TARGET}: 0 of 2 convolutions and products multiply bfloat16"
    with pytest.raises(GraphoptError, match="--keep-float: only with --precision bf16, fp16 or tf32"):
        api.build(model(), tmp_path / "m.gopt", keep_float=["MatMul"])


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match="unknown precision 'fp8'; choose one of fp32, bf16, fp16, tf32"):
        api.build(model(), tmp_path / "m.gopt", precision="fp8")


def test_tolerance_grows_with_the_root_of_the_layers() -> None:
    """And covers what the same rounding costs in ONNX Runtime, where that is more."""
    source = model()
    Rounding(find_target(TARGET)).apply(rounded := source.clone())
    feeds = [random_feeds(source)]
    assert rounded_tolerance(source, rounded, 0, feeds, BFLOAT16.roundoff) == 0
    assert rounded_tolerance(source, rounded, 2, feeds, BFLOAT16.roundoff) == pytest.approx(4 * 2**-9 * 2)
    assert rounded_tolerance(source, rounded, 8, feeds, BFLOAT16.roundoff) == pytest.approx(4 * 2**-9 * 4)
    [bias] = [value for value in rounded.graph.initializers.values() if value.name == "d"]
    bias.const_value = ir.tensor(WEIGHTS["d"] + 1000)
    assert rounded_tolerance(source, rounded, 2, feeds, BFLOAT16.roundoff) > 1


def test_tolerance_of_sums_in_float16() -> None:
    """Less than that of bfloat16, and more the more products they have."""
    source = model()
    target = multiplying(find_target("aarch64:neoverse-n1"), "fp16")
    Rounding(target, half=FLOAT16).apply(rounded := source.clone())
    feeds = [random_feeds(source)]
    of_many = rounded_tolerance(source, rounded, 2, feeds, FLOAT16.roundoff, 72)
    of_few = rounded_tolerance(source, rounded, 2, feeds, FLOAT16.roundoff, 40)
    assert of_many == pytest.approx(2**-10 * np.sqrt(38 * 2))
    assert of_few == pytest.approx(2**-10 * np.sqrt(22 * 2))
    assert of_many < rounded_tolerance(source, rounded, 2, feeds, BFLOAT16.roundoff)


@pytest.mark.parametrize("name", ["x86-64-v4-bf16", "aarch64", "aarch64:cortex-a72"])
def test_float16_is_refused_where_there_is_none(name: str, tmp_path: Path) -> None:
    message = (
        "--precision fp16: .* has no arithmetic on float16; these have: aarch64:cortex-a76, .*neoverse-n2"
    )
    with pytest.raises(GraphoptError, match=message):
        api.build(model(), tmp_path / "m.gopt", f"aarch64:neoverse-n1,{name}", precision="fp16")
    assert not (tmp_path / "m.gopt").exists()


@pytest.mark.parametrize("name", ["x86-64-v4-bf16", "aarch64:neoverse-n1"])
def test_tf32_is_refused_on_cpus(name: str, tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match=r"--precision tf32: .* has no tensor cores"):
        api.build(model(), tmp_path / "m.gopt", f"cuda:sm_90,{name}", precision="tf32")
    assert not (tmp_path / "m.gopt").exists()


def test_what_is_told_of_float16() -> None:
    target = multiplying(find_target("aarch64:neoverse-n1"), "fp16")
    normalise(source := model())
    prepared = prepare([source], target, "fp16", ())
    assert prepared.precision == "float16"
    assert prepared.notice == f"{target.name}: 2 of 2 convolutions and products multiply float16"
    assert "65504" in prepared.hint
    assert prepare([model()], find_target(TARGET), "bf16", ()).hint == ""


def test_activations_beyond_float16_are_an_error(tmp_path: Path) -> None:
    """They become infinite, as ONNX has it; where no emulator is, too."""
    text = "g (float[16,128] x) => (float[16,96] y) { a = MatMul(x, v) y = MatMul(a, w) }"
    large = make_model(text, v=np.full((128, 128), 3e4, np.float32), w=WEIGHTS["w"])
    with pytest.raises(VerificationError, match="65504: --keep-float"):
        api.build(large, tmp_path / "m.gopt", "aarch64:neoverse-n1", precision="fp16")
    assert not (tmp_path / "m.gopt").exists()
    kept = large.graph[1].name = "second"
    done = api.build(large, tmp_path / "m.gopt", "aarch64:neoverse-n1", precision="fp16", keep_float=[kept])
    assert done.verdict.passed


def test_a_model_that_onnx_runtime_cannot_run_has_the_expected_tolerance() -> None:
    source = model()
    broken = make_model("g (float[2] x) => (float[2] y) { y = com.microsoft.Nothing(x) }")
    assert rounded_tolerance(source, broken, 2, [random_feeds(source)], BFLOAT16.roundoff) == pytest.approx(
        4 * 2**-9 * 2
    )


@pytest.mark.usefixtures("here")
def test_more_than_rounding_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are not what they were, in the artifact and in parts of it."""
    apply = Precision.apply

    def wrong(self: Precision, changed: ir.Model, context: object) -> object:
        outcome = apply(self, changed, context)  # type: ignore[arg-type]
        if (value := changed.graph.initializers.get("w_rounded")) is not None:
            value.const_value = ir.tensor(np.ones((128, 96), np.float32))
        return outcome

    monkeypatch.setattr(Precision, "apply", wrong)
    monkeypatch.setattr("graphopt.compiling.precision.rounded_tolerance", lambda *facts: 0.02)
    with pytest.raises(VerificationError, match="first difference at node"):
        api.build(model(), tmp_path / "m.gopt", TARGET, precision="bf16")
    assert not (tmp_path / "m.gopt").exists()


@pytest.mark.usefixtures("here")
def test_compare_prints_the_precision(tmp_path: Path) -> None:
    api.build(model(), tmp_path / "m.gopt", TARGET, precision="bf16")
    schedule = api.bench.Schedule(runs=1, blocks=1, warmup=0)
    measured = api.compare(model(), {"graphopt": tmp_path / "m.gopt"}, schedule=schedule, threads=1)
    assert json.loads(json.dumps(measured.to_json()))["backends"]["graphopt"]["precision"] == "bfloat16"

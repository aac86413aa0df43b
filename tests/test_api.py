"""compile, optimize and load, as Python calls them."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt
from graphopt import api
from graphopt.errors import GraphoptError, InputError, ModelError, ShapeError, VerificationError
from graphopt.model import save
from graphopt.rewriting.pipeline import Context, Outcome
from graphopt_runtime import CompiledModel, cpu
from graphopt_runtime.artifact import open_artifact
from tests.conftest import make_model

ROWS = "g (float[rows,8] x) => (float[rows,4] y) { h = MatMul(x, w) y = Relu(h) }"
WEIGHTS = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)


def rows_model() -> ir.Model:
    return make_model(ROWS, w=WEIGHTS)


def expected(x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ WEIGHTS, 0)


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return graphopt.compile(rows_model(), dims={"rows": [1, 4, 16]})


def inputs(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)


@pytest.mark.parametrize("kind", ["file", "ir", "proto"])
def test_every_kind_of_model(kind: str, tmp_path: Path) -> None:
    model = rows_model()
    save(model, tmp_path / "m.onnx")
    kinds = {"file": tmp_path / "m.onnx", "ir": model, "proto": ir.to_proto(model)}
    (y,) = graphopt.compile(kinds[kind])(inputs(1))
    np.testing.assert_allclose(y, expected(inputs(1)), rtol=1e-5, atol=1e-6)


def test_a_model_is_left_as_it_was() -> None:
    model = rows_model()
    before = ir.to_proto(model).SerializeToString()
    graphopt.compile(model)
    graphopt.optimize(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_what_is_no_model() -> None:
    with pytest.raises(ModelError, match="not int"):
        graphopt.compile(3)  # type: ignore[arg-type]


def test_an_invalid_message() -> None:
    with pytest.raises(ModelError, match="no outputs"):
        graphopt.compile(onnx.ModelProto())


def test_variants_are_found_by_shape(compiled: CompiledModel) -> None:
    for rows in (16, 1, 4, 1):
        np.testing.assert_allclose(compiled(inputs(rows))[0], expected(inputs(rows)), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"x\[2, 8\].*\n.*x\[1, 8\]\n.*x\[4, 8\]\n.*x\[16, 8\]"):
        compiled(inputs(2))


def test_eight_threads(compiled: CompiledModel) -> None:
    def call(seed: int) -> None:
        rows = (1, 4, 16)[seed % 3]
        (y,) = compiled(inputs(rows, seed))
        np.testing.assert_allclose(y, expected(inputs(rows, seed)), rtol=1e-5, atol=1e-6)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(call, range(400)))) == 400


def test_parent_and_child_both_run_after_a_fork(compiled: CompiledModel) -> None:
    compiled(inputs(16))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        right = all(
            np.allclose(compiled(inputs(16, i))[0], expected(inputs(16, i)), atol=1e-5) for i in range(20)
        )
        os._exit(0 if right else 1)
    for seed in range(20):
        np.testing.assert_allclose(
            compiled(inputs(16, seed))[0], expected(inputs(16, seed)), rtol=1e-5, atol=1e-5
        )
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_output_is_kept(tmp_path: Path) -> None:
    graphopt.compile(rows_model(), output=tmp_path / "m.gopt").close()
    with graphopt.load(tmp_path / "m.gopt") as model:
        assert model.name == "m"


def test_real_inputs_are_checked_before_anything_else() -> None:
    with pytest.raises(InputError, match="float64"):
        graphopt.compile(rows_model(), inputs=[{"x": np.zeros((1, 8))}])
    with pytest.raises(InputError, match="no data for input x"):
        graphopt.optimize(rows_model(), inputs=[{"a": np.zeros(1), "b": np.zeros(1)}])


def test_optimize_keeps_free_dimensions(tmp_path: Path) -> None:
    done = graphopt.optimize(rows_model(), tmp_path / "m.onnx")
    assert str(done.model.graph.inputs[0].shape[0]) == "rows"  # type: ignore[index]
    assert done.verdict.passed


@pytest.mark.parametrize("work", [graphopt.optimize, graphopt.compile])
def test_an_unknown_preset(work: Callable[..., object]) -> None:
    with pytest.raises(GraphoptError, match="O0, O1, O2, O3"):
        work(rows_model(), preset="fast")


def test_constant_nodes_are_not_counted() -> None:
    model = make_model("g (float[2] x) => (float[2] y) { y = Add(x, c) }", c=np.ones(2, np.float32))
    model.graph.insert_before(model.graph[0], ir.node("Constant", [], {"value_float": 1.0}, name="unused"))
    assert graphopt.optimize(model).before.nodes == 1


class Wrong:
    """A pass that is not lossless."""

    name = "wrong"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        relu = next(node for node in model.graph if node.op_type == "Relu")
        relu.op_type = "Neg"
        return Outcome(True)


def test_optimize_writes_nothing_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.passes.preset", lambda name: [Wrong()])
    with pytest.raises(VerificationError, match=r"pass 'wrong' \(step 1\) changed the result"):
        graphopt.optimize(rows_model(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_stages_are_announced() -> None:
    stages: list[str] = []
    graphopt.compile(rows_model(), progress=stages.append).close()
    assert stages[0] == "load"
    assert stages[-1] == "write"
    assert any("kernels" in stage for stage in stages)


def test_contradictory_dims() -> None:
    model = make_model("g (float[n,4] x, float[m,4] z) => (float[n,4] y) { y = Add(x, z) }")
    with pytest.raises(ShapeError, match=r"contradict each other.*Add"):
        graphopt.compile(model, dims={"n": 2, "m": 3})


def test_one_artifact_for_several_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gopt"
    done = api.build(rows_model(), path, "x86-64-v3,x86-64-v2", dims={"rows": [1, 4]})
    assert done.verdict.passed
    opened = open_artifact(path)
    assert [build["target"]["name"] for build in opened.builds] == ["x86-64-v2", "x86-64-v3"]
    assert set(opened.program.members) > {"library.x86-64-v2.so", "weights.x86-64-v3.bin"}
    older = frozenset({"sse4_1", "sse4_2", "ssse3", "popcnt"})
    for flags in (cpu.cpu_flags(), older):
        monkeypatch.setattr(cpu, "cpu_flags", lambda flags=flags: flags)
        model = graphopt.load(path)
        assert model.manifest["target"]["name"] == ("x86-64-v2" if flags is older else "x86-64-v3")
        np.testing.assert_allclose(model(inputs(4))[0], expected(inputs(4)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("targets", ["x86-64-v3,z80", "", "x86-64-v3,"])
def test_an_unknown_one_of_several_targets(targets: str, tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match="unknown target"):
        api.build(rows_model(), tmp_path / "m.gopt", targets)
    assert not list(tmp_path.iterdir())

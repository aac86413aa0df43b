import numpy as np
import onnx_ir as ir
import pytest

from graphopt.accuracy.islands import isolate, quantised_values, verify_islands
from graphopt.accuracy.locate import Compiler
from graphopt.accuracy.verify import Runner, reference
from tests.conftest import make_model

QDQ = """g (float[4] x) => (float[4] y) {
    q0 = QuantizeLinear(x, s, z) d0 = DequantizeLinear(q0, s, z)
    wq = QuantizeLinear(w, s, z) wd = DequantizeLinear(wq, s, z)
    m = Mul(d0, wd) q1 = QuantizeLinear(m, s, z) d1 = DequantizeLinear(q1, s, z) y = Tanh(d1)
}"""
FEEDS = [{"x": np.float32([0.1, 0.5, 1.2, -3.0])}, {"x": np.float32([-1, 0.01, 2, 0])}]


@pytest.fixture
def model() -> ir.Model:
    """Two quantised activations and one weight that is quantised in the graph."""
    return make_model(QDQ, 18, s=np.float32(0.05), z=np.uint8(128), w=np.float32([1, 2, -1, 0.5]))


def shifted(value: str, by: int) -> Compiler:
    """A compiler whose result for one quantised value is off by some steps."""

    def build(model: ir.Model) -> Runner:
        run = reference(model)
        return lambda feeds: {
            name: array + np.uint8(by) if name == value else array for name, array in run(feeds).items()
        }

    return build


def test_weights_are_no_activations(model: ir.Model) -> None:
    assert quantised_values(model) == ["q0", "q1"]


def test_ranges_found_at_run_time_are_quantised_values() -> None:
    text = (
        "g (float[4] x) => (float[4] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }"
    )
    dynamic = make_model(text)
    assert quantised_values(dynamic) == ["q", "s", "z"]
    assert verify_islands(dynamic, reference, FEEDS).max_steps == 0
    assert verify_islands(dynamic, shifted("z", 1), FEEDS).passed
    assert not verify_islands(dynamic, shifted("z", 2), FEEDS).passed


def test_islands_are_cut_apart(model: ir.Model) -> None:
    parts = isolate(model, {"q0": np.zeros(4, np.uint8), "q1": np.zeros(4, np.uint8)})
    assert [value.name for value in parts.graph.inputs] == ["x", "q0__given", "q1__given"]
    assert [value.name for value in parts.graph.outputs] == ["y", "q0", "q1"]
    assert [value.dtype for value in parts.graph.outputs[1:]] == [ir.DataType.UINT8] * 2
    ones = np.full(4, 148, np.uint8)
    result = reference(parts)({"x": FEEDS[0]["x"], "q0__given": ones, "q1__given": ones})
    np.testing.assert_allclose(result["y"], np.tanh(1), rtol=1e-6)
    np.testing.assert_array_equal(result["q1"], [148, 168, 108, 138])
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_the_reference_passes(model: ir.Model) -> None:
    verdict = verify_islands(model, reference, FEEDS)
    assert verdict.passed
    assert verdict.max_abs_err == 0


@pytest.mark.parametrize(("steps", "passed"), [(1, True), (2, False)])
def test_one_step_is_allowed(model: ir.Model, steps: int, passed: bool) -> None:
    verdict = verify_islands(model, shifted("q0", steps), FEEDS)
    assert verdict.passed is passed
    assert f"{steps} quantisation step" in str(verdict)
    assert {output.name: output.max_abs_err for output in verdict.outputs} == {"y": 0, "q0": steps, "q1": 0}


def test_float_outputs_keep_their_tolerance(model: ir.Model) -> None:
    def build(part: ir.Model) -> Runner:
        run = reference(part)
        return lambda feeds: {
            name: array * np.float32(1.01) if name == "y" else array for name, array in run(feeds).items()
        }

    assert "output 'y'" in str(verify_islands(model, build, FEEDS))


def test_what_cannot_be_run_or_fed_is_not_verified(model: ir.Model) -> None:
    assert not verify_islands(model, reference, []).verified
    unknown = make_model("g (float[2] x) => (float[2] y) { y = graphopt.Unheard(x) }")
    assert not verify_islands(unknown, reference, [{"x": np.zeros(2, np.float32)}]).verified

"""Every operator of the domain ``graphopt`` can be written in standard ONNX, old or new."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from graphopt.passes.expand import EXPANSIONS, ROUND_TF32, Expand
from graphopt.rewriting.pipeline import Context
from tests.conftest import make_model, random_feeds, reference

CALLS = {
    "Attention": "graphopt.Attention <scale = 0.3> (x, x, x)",
    "Gelu": 'graphopt.Gelu <approximate = "tanh"> (x)',
    "HardSwish": "graphopt.HardSwish (x)",
    "LayerNormalization": "graphopt.LayerNormalization <axis = -1, epsilon = 0.001> (x, w, b)",
    "Mish": "graphopt.Mish (x)",
    "RMSNormalization": "graphopt.RMSNormalization <axis = -2> (x, w)",
    "Swish": "graphopt.Swish <alpha = 1.5> (x)",
}
C = {"w": np.array([1, 2, 3], np.float32), "b": np.array([3, 0, -1], np.float32)}
NEWEST = 24


def model(call: str, opset: int) -> ir.Model:
    return make_model(f"agraph (float[1,2,4,3] x) => (float[1,2,4,3] y) {{ y = {call} }}", opset, **C)


def test_every_operator_is_tested() -> None:
    assert {*CALLS, ROUND_TF32} == EXPANSIONS.keys()


@pytest.mark.parametrize("opset", [11, 18])
def test_tf32_is_the_nearest_number_of_eleven_bits(opset: int) -> None:
    """No opset has it: it is always written as primitives."""
    rounding = model(f"graphopt.{ROUND_TF32} (x)", opset)
    assert Expand().apply(rounding, Context()).applied[f"expand {ROUND_TF32}"] == 1
    x = (random_feeds(rounding)["x"] * np.float32(1e20)).astype(np.float32)
    (found,) = reference(rounding, {"x": x})
    assert not (found.view(np.uint32) & 0x1FFF).any()
    _, exponents = np.frexp(x)
    assert (np.abs(found - x) <= np.ldexp(0.5, exponents - 11)).all()


@pytest.mark.parametrize("op_type", CALLS)
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_primitives_mean_the_same_as_the_standard_operator(op_type: str, opset: int) -> None:
    old, new = model(CALLS[op_type], opset), model(CALLS[op_type], NEWEST)
    for each in (old, new):
        assert Expand().apply(each, Context()).applied[f"expand {op_type}"] == 1
        assert "graphopt" not in each.opset_imports
        onnx.checker.check_model(ir.to_proto(each), full_check=True)
    assert [node.op_type for node in new.graph] == [op_type]
    feeds = random_feeds(old)
    expected = ReferenceEvaluator(ir.to_proto(new)).run(None, feeds)
    np.testing.assert_allclose(reference(old, feeds), expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_such_operators_stays() -> None:
    assert not Expand().apply(model("Relu (x)", 18), Context()).modified

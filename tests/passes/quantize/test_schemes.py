"""Weights alone and ranges at run time: standard ONNX that ONNX Runtime runs, near the floats that it came from."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model.inference import infer_shapes
from graphopt.passes.quantize.dynamic import dynamic_products
from graphopt.passes.quantize.plan import Plan, make_plan
from graphopt.passes.quantize.untie import untie
from graphopt.passes.quantize.weights import int4_weights, int8_weights
from tests.conftest import make_model, ops, reference

RNG = np.random.default_rng(4)
X = RNG.standard_normal((3, 40)).astype(np.float32)
W = RNG.standard_normal((40, 24)).astype(np.float32)
V = RNG.standard_normal((24, 8)).astype(np.float32)
B = RNG.standard_normal(24).astype(np.float32)
TEXTS = {
    "MatMul": "a = MatMul(x, w) r = Relu(a) y = MatMul(r, v)",
    "Gemm": "a = Gemm(x, w, b) r = Relu(a) y = MatMul(r, v)",
    "transposed": "a = Gemm<transB = 1>(x, t, b) r = Relu(a) y = MatMul(r, v)",
}
Write = Callable[[ir.Model, Plan], None]


def model(body: str, opset: int) -> ir.Model:
    text = f"agraph (float[3,40] x) => (float[3,8] y) {{ {body} }}"
    made = make_model(text, opset, w=W, v=V, b=B, t=np.ascontiguousarray(W.T))
    made.ir_version = 10
    infer_shapes(made)
    return made


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("write", "opset", "tolerance"),
    [
        (int8_weights, 13, 0.02),
        (lambda model, plan: int4_weights(model, plan, 16), 21, 0.15),
        (lambda model, plan: int4_weights(model, plan, 1000), 21, 0.15),
        (dynamic_products, 13, 0.03),
    ],
    ids=["int8", "int4", "one block", "dynamic"],
)
def test_results_stay_near(text: str, write: Write, opset: int, tolerance: float) -> None:
    graph = model(TEXTS[text], opset)
    [before] = reference(graph, {"x": X})
    write(graph, make_plan(graph.graph))
    [after] = reference(graph, {"x": X})
    assert 0 < np.abs(after - before).max() <= tolerance * np.abs(before).max()


def test_the_last_matrix_keeps_eight_bits() -> None:
    graph = model(TEXTS["MatMul"], 21)
    int4_weights(graph, make_plan(graph.graph), 16)
    found = {str(value.dtype) for name, value in graph.graph.initializers.items() if "quantized" in name}
    assert found == {"UINT4", "INT8"}


def test_convolutions_store_bytes_in_every_scheme() -> None:
    weights = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    image = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    for write in (int8_weights, dynamic_products):
        graph = make_model(
            "agraph (float[1,3,8,8] x) => (float[1,4,6,6] y) { y = Conv(x, w) }", 13, w=weights
        )
        infer_shapes(graph)
        [before] = reference(graph, {"x": image})
        write(graph, make_plan(graph.graph))
        assert ops(graph) == {"Conv": 1, "DequantizeLinear": 1}
        [after] = reference(graph, {"x": image})
        assert np.abs(after - before).max() < 0.02 * np.abs(before).max()


def test_products_of_one_value_share_its_integers() -> None:
    graph = model("a = MatMul(x, w) c = Gemm(x, w, b) s = Add(a, c) y = MatMul(s, v)", 13)
    dynamic_products(graph, make_plan(graph.graph))
    assert ops(graph)["DynamicQuantizeLinear"] == 2
    assert ops(graph)["MatMulInteger"] == 3


def test_scaled_products_keep_floats() -> None:
    graph = model("a = Gemm<alpha = 2.0>(x, w, b) y = MatMul(a, v)", 13)
    dynamic_products(graph, make_plan(graph.graph))
    assert (ops(graph)["Gemm"], ops(graph)["MatMulInteger"]) == (1, 1)


def test_a_shared_table_becomes_two_matrices() -> None:
    text = """agraph (int64[2] i) => (float[2,24] y)
        { e = Gather(t, i) w = Transpose<perm = [1, 0]>(t) y = MatMul(e, w) }"""
    graph = make_model(text, 13, t=np.ascontiguousarray(W[:24, :24]))
    before = reference(graph, {"i": np.array([3, 5])})
    assert untie(graph, lambda node: False) == 0
    assert untie(graph, lambda node: True) == 1
    infer_shapes(graph)
    assert len(make_plan(graph.graph).anchors) == 1
    np.testing.assert_array_equal(reference(graph, {"i": np.array([3, 5])})[0], before[0])


def test_other_transposes_stay() -> None:
    graph = make_model(
        "agraph (float[24,40] x) => (float[24,24] y) { t = Transpose<perm = [1, 0]>(x) y = MatMul(x, t) }", 13
    )
    assert untie(graph, lambda node: True) == 0

"""Which layers can be rounded in other ways."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.training.rounding.layers import find_layers
from tests.conftest import make_model
from tests.training.rounding.harness import optimised, with_few_bits

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 6)).astype(np.float32)
LEVELS = np.rint(WEIGHT * 3).astype(np.int8)
THIRDS = np.full(6, 1 / 3, np.float32)


def pair(text: str, **constants: np.ndarray) -> tuple[ir.Model, ir.Model]:
    """A product on floats, and what stands for it."""
    teacher = make_model("agraph (float[N,4] x) => (float[N,6] y) { y = MatMul(x, w) }", 21, w=WEIGHT)
    known = {"q": LEVELS, "s": THIRDS, "w": WEIGHT} | constants
    used = {name: array for name, array in known.items() if name in text}
    return teacher, make_model(f"agraph (float[N,4] x) => (float[N,6] y) {{ {text} }}", 21, **used)


def test_layers_of_a_model_in_order() -> None:
    teacher = optimised("digits_cnn")
    layers = find_layers(teacher, with_few_bits(teacher))
    kinds = [node.op_type for node in teacher.graph if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == len(kinds) > 3
    for layer in layers:
        assert abs(layer.grid.exact(layer.floats) - layer.grid.exact(layer.floats).round()).max() <= 0.5


def test_an_activation_belongs_to_its_layer() -> None:
    teacher = make_model(
        "agraph (float[N,4] x) => (float[N,6] y) { p = MatMul(x, w) y = Relu(p) }", 21, w=WEIGHT
    )
    student = make_model(
        "agraph (float[N,4] x) => (float[N,6] y) { d = DequantizeLinear<axis = 1>(q, s) p = MatMul(x, d) y = Relu(p) }",
        21,
        q=LEVELS,
        s=THIRDS,
    )
    (layer,) = find_layers(teacher, student)
    assert (layer.input, layer.weight, layer.result) == ("x", "d", "y")
    student.graph.outputs.append(next(iter(student.graph[1].outputs)))
    assert find_layers(teacher, student)[0].result == "p"


def test_blocks_with_zero_points() -> None:
    scales, zeros = RNG.random((2, 6)).astype(np.float32) + 0.5, RNG.integers(0, 5, (2, 6)).astype(np.int8)
    (layer,) = find_layers(
        *pair("d = DequantizeLinear<axis = 0, block_size = 2>(q, s, z) y = MatMul(x, d)", s=scales, z=zeros)
    )
    expected = (LEVELS - np.repeat(zeros, 2, 0)) * np.repeat(scales, 2, 0)
    np.testing.assert_allclose(layer.grid.values(layer.grid.cut(layer.floats.new_tensor(LEVELS))), expected)


@pytest.mark.parametrize(
    "text",
    [
        "y = MatMul(x, w)",
        "t = Transpose(u) d = DequantizeLinear<axis = 1>(t, s) y = MatMul(x, d)",
        "d = DequantizeLinear<axis = 1>(q, s) z = MatMul(x, d) y = Identity(z)",
        "d = DequantizeLinear<axis = 1>(q, s) y = Gemm(x, d)",
        "a = Abs(s) d = DequantizeLinear<axis = 1>(q, a) y = MatMul(x, d)",
    ],
    ids=["floats", "computed levels", "another result", "another operator", "computed scales"],
)
def test_what_is_no_such_layer(text: str) -> None:
    extra = {"u": LEVELS.T.copy()} if "(u)" in text else {}
    assert find_layers(*pair(text, **extra)) == []


def test_shared_weights_are_learned_once() -> None:
    text = (
        "agraph (float[N,4] x) => (float[N,6] y, float[N,6] z) {{ {} y = MatMul(x, {w}) z = MatMul(x, {w}) }}"
    )
    teacher = make_model(text.format("", w="w"), 21, w=WEIGHT)
    student = make_model(text.format("d = DequantizeLinear<axis = 1>(q, s)", w="d"), 21, q=LEVELS, s=THIRDS)
    assert [layer.result for layer in find_layers(teacher, student)] == ["y"]

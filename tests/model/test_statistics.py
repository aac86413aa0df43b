"""Counts by hand."""

import numpy as np
import pytest

from graphopt.model import infer_shapes, statistics
from tests.conftest import make_model


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("text", "weights", "macs"),
    [
        ("(float[1,3,8,8] x) => (float[1,4,6,6] y) { y = Conv(x, w) }", zeros(4, 3, 3, 3), 4 * 36 * 27),
        (
            "(float[1,4,8,8] x) => (float[1,4,6,6] y) { y = Conv<group = 4>(x, w) }",
            zeros(4, 1, 3, 3),
            4 * 36 * 9,
        ),
        ("(float[1,3,4,4] x) => (float[1,2,6,6] y) { y = ConvTranspose(x, w) }", zeros(3, 2, 3, 3), 48 * 18),
        ("(float[2,5,3] x) => (float[2,5,7] y) { y = MatMul(x, w) }", zeros(3, 7), 2 * 5 * 7 * 3),
        ("(float[3,5] x) => (float[5,7] y) { y = Gemm<transA = 1>(x, w) }", zeros(3, 7), 5 * 7 * 3),
        ("(float[N,3] x) => (float[N,7] y) { y = MatMul(x, w) }", zeros(3, 7), 21),
    ],
)
def test_multiply_accumulates(text: str, weights: np.ndarray, macs: int) -> None:
    model = make_model(f"agraph {text}", w=weights)
    infer_shapes(model)
    assert statistics(model).macs == macs


def test_parameters_operators_and_interface() -> None:
    model = make_model(
        "agraph (float[N,3] x) => (float[N,7] y) { a = MatMul(x, w) y = Relu(a) }", w=zeros(3, 7)
    )
    found = statistics(model)
    assert (found.nodes, found.params, found.bytes) == (2, 21, 84)
    assert found.ops == {"MatMul": 1, "Relu": 1}
    assert (found.inputs[0].name, found.inputs[0].dtype, found.inputs[0].shape) == ("x", "float32", ["N", 3])
    assert found.outputs[0].shape == ["N", 7]


def test_strings_are_counted_by_their_characters() -> None:
    model = make_model(
        "agraph (string[2] x) => (bool[2] y) { y = Equal(x, w) }", 19, w=np.array(["ab", "cde"])
    )
    infer_shapes(model)
    assert statistics(model).bytes == 5

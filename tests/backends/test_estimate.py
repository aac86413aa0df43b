"""What nodes are estimated to take at widths that their model does not have."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.estimate import Estimate
from graphopt.backends.kernels.core import Core
from graphopt.model import infer_shapes
from tests.conftest import make_model

CORE = Core(lanes=16, registers=32)


def node_of(text: str, **constants: np.ndarray) -> ir.Node:
    """The first node of a model whose shapes are known."""
    model = make_model(text, **constants)
    infer_shapes(model)
    return next(iter(model.graph))


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def convolution(*shape: int, channels: int, more: str = "") -> ir.Node:
    text = f"a (float[1,{channels},14,14] x) => (float[1,{shape[0]},14,14] y) {{ y = Conv <pads = [1,1,1,1] {more}> (x, w) }}"
    return node_of(text, w=weights(*shape))


CASES = {
    "Conv": (lambda: convolution(64, 32, 3, 3, channels=32), (0, 1)),
    "MatMul": (lambda: node_of("a (float[7,32] x) => (float[7,64] y) { y = MatMul(x, w) }", w=weights(32, 64)), (1, 0)),
    "Gemm": (
        lambda: node_of("a (float[7,32] x) => (float[7,64] y) { y = Gemm <transB = 1> (x, w) }", w=weights(64, 32)),
        (0, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_filters_count_by_vectors_and_channels_one_by_one(name: str) -> None:
    make, (filters, channels) = CASES[name]
    node, estimate = make(), Estimate(CORE)

    def cycles(made: int, read: int) -> float:
        shape = list(node.inputs[1].shape.numpy())  # type: ignore[union-attr]
        shape[filters], shape[channels] = made, read
        return estimate.cycles(node, shape)

    assert cycles(64, 32) == cycles(49, 32) > cycles(48, 32)
    assert cycles(64, 31) < cycles(64, 32)
    assert cycles(0, 32) == cycles(64, 0) == 0


def test_a_depthwise_convolution_counts_by_vectors() -> None:
    node, estimate = convolution(32, 1, 3, 3, channels=32, more=", group = 32"), Estimate(CORE)
    found = {width: estimate.cycles(node, (width, 1, 3, 3)) for width in (32, 17, 16)}
    assert found[32] == found[17] == 2 * found[16]


def test_a_grouped_convolution_keeps_its_groups() -> None:
    node, estimate = convolution(64, 16, 3, 3, channels=32, more=", group = 2"), Estimate(CORE)
    assert estimate.cycles(node, (32, 16, 3, 3)) < estimate.cycles(node, (64, 16, 3, 3))


def test_other_operators_count_by_multiply_adds() -> None:
    text = "a (float[1,8,5,5] x) => (float[1,4,5,5] y) { y = ConvTranspose (x, w) }"
    node, estimate = node_of(text, w=weights(8, 4, 1, 1)), Estimate(CORE)
    whole = estimate.cycles(node, (8, 4, 1, 1))
    assert estimate.cycles(node, (8, 2, 1, 1)) == pytest.approx(whole / 2)


def test_free_dimensions_have_the_sizes_that_are_given() -> None:
    node = node_of("a (float[seq,32] x) => (float[seq,64] y) { y = MatMul(x, w) }", w=weights(32, 64))
    assert Estimate(CORE, {"seq": 128}).cycles(node, (32, 64)) > 5 * Estimate(CORE).cycles(node, (32, 64))
    assert Estimate(CORE, {"other": 128}).cycles(node, (32, 64)) == Estimate(CORE).cycles(node, (32, 64))

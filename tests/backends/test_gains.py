"""Which nodes are worth rounding."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.gains import gains
from graphopt.backends.targets import TARGETS
from tests.conftest import make_model

N1 = TARGETS["aarch64:neoverse-n1"].core
FP16 = replace(N1, half=N1.float16)
BF16 = TARGETS["x86-64-v4-bf16"].core
RNG = np.random.default_rng(0)


def convolution(channels: int, filters: int, size: int, kernel: int, groups: int = 1) -> ir.Node:
    pad = kernel // 2
    weights = RNG.standard_normal((filters, channels // groups, kernel, kernel)).astype(np.float32)
    text = f"""g (float[1,{channels},{size},{size}] x) => (float[1,{filters},{size},{size}] y) {{
        y = Conv<pads=[{pad},{pad},{pad},{pad}], group={groups}>(x, w) }}"""
    return make_model(text, w=weights).graph[0]


def product(rows: int, depth: int, columns: int) -> ir.Node:
    text = f"g (float[{rows},{depth}] x) => (float[{rows},{columns}] y) {{ y = MatMul(x, w) }}"
    return make_model(text, w=np.ones((depth, columns), np.float32)).graph[0]


@pytest.mark.parametrize(
    "node",
    [convolution(64, 64, 28, 1), convolution(64, 128, 14, 5), product(128, 384, 384), product(1, 512, 1000)],
)
def test_gains(node: ir.Node) -> None:
    assert gains(BF16)(node)
    assert not gains(TARGETS["x86-64-v4"].core)(node)


@pytest.mark.parametrize(
    "node",
    [
        convolution(3, 32, 28, 3),
        convolution(32, 8, 28, 1),
        convolution(64, 64, 28, 3, groups=64),
        product(16, 385, 64),
        product(128, 384, 2),
        product(16, 8, 4),
    ],
    ids=["few channels", "few filters", "depthwise", "odd depth", "few columns", "tiny"],
)
def test_nothing_to_gain(node: ir.Node) -> None:
    assert not gains(BF16)(node)


def test_winograd_beats_halves() -> None:
    """Four times fewer products, where they are accurate enough, are better than products twice as fast."""
    assert not gains(BF16)(convolution(64, 64, 56, 3))


@pytest.mark.parametrize("node", [convolution(64, 64, 28, 1), product(128, 385, 384), product(1, 512, 1000)])
def test_gains_in_float16(node: ir.Node) -> None:
    """Any depth will do."""
    assert gains(FP16)(node)
    assert not gains(N1)(node)


@pytest.mark.parametrize(
    "node", [convolution(3, 32, 28, 3), convolution(64, 64, 28, 3, groups=64), convolution(64, 64, 56, 3)]
)
def test_nothing_to_gain_in_float16(node: ir.Node) -> None:
    assert not gains(FP16)(node)


def test_free_shapes_gain_nothing() -> None:
    node = make_model(
        "g (float[n,8] x) => (float[n,32] y) { y = MatMul(x, w) }", w=np.ones((8, 32), np.float32)
    )
    assert not gains(BF16)(node.graph[0])

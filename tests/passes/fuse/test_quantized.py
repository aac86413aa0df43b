"""Between DequantizeLinear and QuantizeLinear, convolutions and products take the integers themselves."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, fuse_for_compile, reasons

RNG = np.random.default_rng(4)
SX, SW, SY = np.float32(0.05), np.array([0.02, 0.03, 0.01], np.float32), np.float32(0.1)
C = {
    "sx": SX,
    "zx": np.uint8(128),
    "sw": SW,
    "s1": SW[0],
    "w": RNG.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8),
    "m": RNG.integers(-127, 128, (4, 3)).astype(np.int8),
    "b": RNG.integers(-999, 999, 3).astype(np.int32),
    "sb": SX * SW,
    "sy": SY,
    "zy": np.uint8(100),
    "low": np.uint8(0),
    "c0": np.float32(0),
    "c6": np.float32(6),
}
CONV = "agraph (uint8[1,2,8,8] q) => (uint8[1,3,6,6] y)"
MATMUL = "agraph (uint8[2,5,4] q) => (uint8[2,5,3] y)"
OPERANDS = "x = DequantizeLinear(q, sx, zx) f = DequantizeLinear<axis = 0>(w, sw) g = DequantizeLinear<axis = 0>(b, sb)"
FACTORS = "x = DequantizeLinear(q, sx, zx) f = DequantizeLinear<axis = 1>(m, sw)"
STEP = 1
"""Rounding the exact sum and rounding the float one may differ by one integer."""


def model(text: str, opset: int = 13, **changed: np.ndarray) -> ir.Model:
    return make_model(text, opset, **{**C, **changed})


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) y = QuantizeLinear(c, sy, zy) }}", {}),
        (f"{CONV} {{ {OPERANDS} c = Conv(x, f) y = QuantizeLinear(c, sy) }}", {}),
        (f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) r = Relu(c) y = QuantizeLinear(r, sy, low) }}", {}),
        (f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) r = Relu(c) y = QuantizeLinear(r, sy, zy) }}", {"Max": 1}),
        (
            f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) r = Clip(c, c0, c6) y = QuantizeLinear(r, sy, zy) }}",
            {"Max": 1, "Min": 1},
        ),
    ],
)
def test_convolutions(text: str, left: dict[str, int]) -> None:
    graph = model(text)
    assert fuse_for_compile(graph, steps=STEP).applied["integer Conv"] == 1
    assert ops(graph) == Counter({"QLinearConv": 1, **left})


def test_products() -> None:
    graph = model(f"{MATMUL} {{ {FACTORS} p = MatMul(x, f) y = QuantizeLinear(p, sy, zy) }}")
    assert fuse_for_compile(graph, steps=STEP).applied["integer MatMul"] == 1
    assert ops(graph) == {"QLinearMatMul": 1}


@pytest.mark.parametrize(
    ("text", "changed", "reason"),
    [
        (
            f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) y = QuantizeLinear(c, sy, zy) }}",
            {"sb": SX * SW * 2},
            "the bias has another scale than the products it is added to",
        ),
        (
            f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) y = QuantizeLinear(c, sy, zy) }}".replace("axis = 0", "axis = 1", 1),
            {"sw": SW[:2], "sb": SX * SW},
            "the weights are not quantised by output channel",
        ),
        (
            f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) r = Clip(c, x0, c6) y = QuantizeLinear(r, sy, zy) }}".replace(
                " q)", " q, float x0)", 1
            ),
            {},
            "the bounds are not constant",
        ),
        (
            f"agraph (uint8[4] q) => (uint8[3] y) {{ {FACTORS} p = MatMul(x, f) y = QuantizeLinear(p, sy, zy) }}",
            {},
            "an operand is no matrix",
        ),
    ],
)  # fmt: skip
def test_refusals(text: str, changed: dict[str, np.ndarray], reason: str) -> None:
    graph = model(text, **changed)
    outcome = fuse_for_compile(graph, steps=STEP)
    assert reason in [*reasons(outcome, "integer Conv"), *reasons(outcome, "integer MatMul")]
    assert not {"QLinearConv", "QLinearMatMul"} & set(ops(graph))


def test_old_opsets_have_no_bounds_for_bytes() -> None:
    graph = model(
        "agraph (uint8[1,2,8,8] q) => (uint8[1,3,6,6] y) { x = DequantizeLinear(q, sx, zx) f = DequantizeLinear(w, s1)"
        " c = Conv(x, f) r = Relu(c) y = QuantizeLinear(r, sy, zy) }",
        10,
    )
    assert reasons(fuse_for_compile(graph, steps=STEP), "integer Conv") == ["Max of bytes needs opset 12"]


def test_a_float_that_is_used_elsewhere_stays() -> None:
    graph = model(
        "agraph (uint8[1,2,8,8] q) => (uint8[1,3,6,6] y, float[1,3,6,6] c)"
        f" {{ {OPERANDS} c = Conv(x, f, g) y = QuantizeLinear(c, sy, zy) }}"
    )
    fuse_for_compile(graph, steps=STEP)
    assert ops(graph)["Conv"] == 1


def test_optimize_keeps_the_format() -> None:
    graph = model(f"{CONV} {{ {OPERANDS} c = Conv(x, f, g) y = QuantizeLinear(c, sy, zy) }}")
    assert not fuse(graph).modified

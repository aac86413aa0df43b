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


FLOAT_CONV, FLOAT_GEMM = (
    "agraph (uint8[1,2,8,8] q) => (float[1,3,6,6] y)",
    "agraph (uint8[5,4] q) => (float[5,3] y)",
)
MOVED = "agraph (uint8[1,2,8,8] q) => (uint8[1,2,4,4] y)"
JOINED = "agraph (uint8[2,3] q, uint8[2,3] p) => (uint8[2,6] y)"
PAIR = "{ a = DequantizeLinear(q, sx, zx) u = DequantizeLinear(p, %s, %s) c = Concat<axis = 1>(a, u) y = QuantizeLinear(c, sx, zx) }"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            f"{FLOAT_CONV} {{ {OPERANDS} y = Conv(x, f, g) }}",
            {"ConvInteger": 1, "Cast": 1, "Mul": 1, "Add": 1},
        ),
        (
            f"{FLOAT_CONV} {{ {OPERANDS} y = Conv(x, f, o) }}",
            {"ConvInteger": 1, "Cast": 1, "Mul": 1, "Add": 1},
        ),
        (f"{FLOAT_CONV} {{ {OPERANDS} y = Conv(x, f) }}", {"ConvInteger": 1, "Cast": 1, "Mul": 1}),
        (
            "agraph (uint8[2,5,4] q) => (float[2,5,3] y) { " + FACTORS + " y = MatMul(x, f) }",
            {"MatMulInteger": 1, "Cast": 1, "Mul": 1},
        ),
        (
            f"{FLOAT_GEMM} {{ {FACTORS} y = Gemm(x, f, o) }}",
            {"MatMulInteger": 1, "Cast": 1, "Mul": 1, "Add": 1},
        ),
        (
            f"{FLOAT_GEMM} {{ {FACTORS.replace('axis = 1', 'axis = 0').replace('(m,', '(t,')} y = Gemm<transB = 1>(x, f) }}",
            {"MatMulInteger": 1, "Cast": 1, "Mul": 1},
        ),
    ],
    ids=["bias", "float bias", "no bias", "MatMul", "Gemm", "transposed Gemm"],
)
def test_sums_that_stay_floats(text: str, left: dict[str, int]) -> None:
    graph = model(text, o=np.array([0.5, -1, 2], np.float32), t=np.ascontiguousarray(C["m"].T))
    outcome = fuse_for_compile(graph, tolerance=1e-4)
    assert sum(count for name, count in outcome.applied.items() if name.startswith("sums of")) == 1
    assert ops(graph) == Counter(left)


def test_a_scaled_gemm_stays() -> None:
    graph = model(f"{FLOAT_GEMM} {{ {FACTORS} y = Gemm<alpha = 2.0>(x, f) }}")
    assert reasons(fuse_for_compile(graph, tolerance=1e-4), "sums of Gemm") == [
        "its operands are scaled or transposed"
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"{MOVED} {{ x = DequantizeLinear(q, sx, zx) k = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) y = QuantizeLinear(k, sx, zx) }}",
        f"{JOINED} {PAIR % ('sx', 'zx')}",
    ],
    ids=["MaxPool", "Concat"],
)
def test_integers_are_moved_as_they_are(text: str) -> None:
    graph = model(text)
    assert fuse_for_compile(graph).applied["integers moved"] == 1
    assert len(ops(graph)) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{JOINED} {PAIR % ('sy', 'zx')}", "the scales differ"),
        (f"{JOINED} {PAIR % ('sx', 'zy')}", "the scales differ"),
        (
            "agraph (uint8[2,3] q) => (uint8[3,2] y) { x = DequantizeLinear(q, sx, zx) t = Transpose(x) y = QuantizeLinear(t, sy, zx) }",
            "the scales differ",
        ),
        (
            "agraph (uint8[2,3] q) => (uint8[3,2] y) { x = DequantizeLinear(q, sx, zx) t = Transpose(x) y = QuantizeLinear(t, sx, zy) }",
            "the zero points differ",
        ),
    ],
)
def test_other_scales_are_rounded_anew(text: str, reason: str) -> None:
    graph = model(text)
    outcome = fuse_for_compile(graph)
    assert reason in reasons(outcome, "integers moved")
    assert "QuantizeLinear" in ops(graph)


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

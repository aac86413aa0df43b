"""Channels between operators on integers."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from tests.conftest import make_model
from tests.passes.prune.checking import check_exact, random, ready


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).integers(-120, 120, shape).astype(np.int8)


SCALES = {
    "ws": np.abs(random(8)) * np.float32(0.01),
    "wz": np.zeros(8, np.int8),
    "c": np.arange(8, dtype=np.int32) * 10,
    "vs": np.abs(random(4)) * np.float32(0.01),
    "vz": np.zeros(4, np.int8),
    "t": np.float32(0.05),
    "z": np.uint8(5),
}
WEIGHTS = {"w": whole(8, 3, 1, 1), "v": whole(4, 8, 1, 1)}


@pytest.mark.parametrize("by_channel", [True, False])
def test_quantise_and_dequantise(by_channel: bool) -> None:
    text = """agraph (float[2,3,6,6] x) => (float[2,4,6,6] y) {
        wd = DequantizeLinear <axis = 0> (w, ws, wz) cd = DequantizeLinear <axis = 0> (c, ws) a = Conv(x, wd, cd)
        q = QuantizeLinear(a, t, z) d = DequantizeLinear(q, t, z) b = Relu(d)
        vd = DequantizeLinear <axis = 0> (v, vs, vz) y = Conv(b, vd) }"""
    numbers = SCALES if by_channel else {**SCALES, "ws": np.float32(0.01), "wz": np.int8(0)}
    (group,) = check_exact(ready(make_model(text, **WEIGHTS, **numbers)))
    scales = {"ws", "wz"} if by_channel else set()
    assert {slot.value.name for slot in group.slots} - {"w", "v", "c"} >= scales
    assert [place.weight.value.name for place in (*group.makers, *group.readers)] == ["w", "v"]


def test_operators_on_integers() -> None:
    text = """agraph (uint8[2,3,6,6] x) => (uint8[2,4,6,6] y)
        <uint8[2,8,6,6] l, uint8[2,8,6,6] m, uint8[2,8,6,6] b, uint8[2,8,6,6] e> {
        a = QLinearConv(x, t, z, w, ws, wz, t, z, c)
        l = com.microsoft.QLinearLeakyRelu(a, t, z, t, z)
        m = com.microsoft.QLinearSigmoid(l, t, z, t, z)
        b = com.microsoft.QLinearAdd(a, t, z, m, t, z, t, z)
        e = com.microsoft.QLinearMul(b, t, z, a, t, z, t, z)
        y = QLinearConv(e, t, z, v, vs, vz, t, z) }"""
    (group,) = check_exact(ready(make_model(text, **WEIGHTS, **SCALES)))
    assert group.size == 8


@pytest.mark.parametrize("pool", ["QLinearGlobalAveragePool", "QLinearAveragePool <kernel_shape = [2,2]>"])
def test_poolings_of_integers(pool: str) -> None:
    text = f"""agraph (uint8[2,3,6,6] x) => (uint8[2,4,N,M] y) <uint8[2,8,N,M] b> {{
        a = QLinearConv(x, t, z, w, ws, wz, t, z, c) b = com.microsoft.{pool} (a, t, z, t, z)
        y = QLinearConv(b, t, z, v, vs, vz, t, z) }}"""
    (group,) = check_exact(ready(make_model(text, **WEIGHTS, **SCALES)))
    assert group.size == 8


def test_convolutions_of_integers() -> None:
    text = """agraph (uint8[2,3,6,6] x) => (float[2,4,6,6] y) {
        a = ConvInteger(x, w, z) f = Cast <to = 1> (a) y = Conv(f, u) }"""
    (group,) = check_exact(ready(make_model(text, w=WEIGHTS["w"], z=SCALES["z"], u=random(4, 8, 1, 1))))
    assert group.size == 8


PRODUCTS = {
    "MatMulInteger": "a = MatMulInteger(x, w, z, wz) f = Cast <to = 1> (a) g = Mul(f, s) q = QuantizeLinear(g, o, z) y = MatMulInteger(q, v, z)",
    "QLinearMatMul": "q = QLinearMatMul(x, t, z, w, ws, wz, t, z) y = QLinearMatMul(q, t, z, v, t, k, t, z)",
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_integers(name: str) -> None:
    kind = "int32" if name == "MatMulInteger" else "uint8"
    text = f"agraph (uint8[2,3,6] x) => ({kind}[2,3,4] y) {{ {PRODUCTS[name]} }}"
    numbers = {
        **SCALES,
        "w": whole(6, 8),
        "v": whole(8, 4),
        "s": np.abs(random(8)),
        "o": np.float32(5),
        "k": np.int8(0),
    }
    (group,) = check_exact(ready(make_model(text, **numbers)))
    assert group.size == 8


def test_a_bias_and_gelu() -> None:
    text = """agraph (float[2,3,6] x) => (float[2,3,4] y) <float[2,3,8] b> {
        a = MatMul(x, w) b = com.microsoft.BiasGelu(a, c) y = MatMul(b, v) }"""
    (group,) = check_exact(ready(make_model(text, w=random(6, 8), c=random(8), v=random(8, 4))))
    assert group.size == 8


def test_scales_of_blocks_stay() -> None:
    text = """agraph (float[2,3,6] x) => (float[2,3,4] y) {
        wd = DequantizeLinear <axis = 0, block_size = 3> (w, bs) a = MatMul(x, wd) y = MatMul(a, v) }"""
    found = find_groups(ready(make_model(text, 21, w=whole(6, 8), bs=np.abs(random(2, 8)), v=random(8, 4))))
    assert found.whole[0].reason == "DequantizeLinear 'DequantizeLinear_0' has scales for blocks"

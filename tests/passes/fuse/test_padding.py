"""A Pad moves into a convolution or a pool where that means the same."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, reasons

C = {
    "w": np.random.default_rng(3).standard_normal((2, 3, 3, 3)).astype(np.float32),
    "pads": np.array([0, 0, 1, 0, 0, 0, 2, 1]),
    "crop": np.array([0, 0, -1, 0, 0, 0, 0, 0]),
    "channels": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
    "some": np.array([1, 0, 0, 2]),
    "axes": np.array([2, -1]),
    "large": np.array([0, 0, 3, 3, 0, 0, 3, 3]),
    "zero": np.float32(0),
    "one": np.float32(1),
    "lowest": np.float32(-np.inf),
}
AVERAGE = "AveragePool<kernel_shape = [3, 3]"
MAX = "MaxPool<kernel_shape = [3, 3]"


def model(body: str, opset: int = 18):
    return make_model(f"agraph (float[1,3,8,8] x) => (float[1,c,h,w1] y) {{ {body} }}", opset, **C)


@pytest.mark.parametrize(
    ("body", "opset", "pads"),
    [
        ("p = Pad(x, pads) y = Conv(p, w)", 18, (1, 0, 2, 1)),
        ("p = Pad(x, pads, zero) y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(p, w)", 18, (2, 1, 3, 2)),
        ("p = Pad(x, some, , axes) y = Conv(p, w)", 18, (1, 0, 0, 2)),
        ("p = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1]>(x) y = Conv(p, w)", 10, (1, 1, 1, 1)),
    ],
)
def test_into_conv(body: str, opset: int, pads: tuple[int, ...]) -> None:
    graph = model(body, opset)
    assert fuse(graph).applied["pad into Conv"] == 1
    assert ops(graph) == {"Conv": 1}
    assert tuple(graph.graph[0].attributes["pads"].value) == pads


def test_into_average_pool() -> None:
    for options in ("", ", pads = [1, 1, 1, 1], count_include_pad = 1"):
        graph = model(f"p = Pad(x, pads) y = {AVERAGE.replace('3, 3', '4, 4')}{options}>(p)")
        assert fuse(graph).applied["pad into AveragePool"] == 1
        assert graph.graph[0].attributes["count_include_pad"].value == 1


@pytest.mark.parametrize(
    "body", [f"r = Relu(x) p = Pad(r, pads) y = {MAX}>(p)", f"p = Pad(x, pads, lowest) y = {MAX}>(p)"]
)
def test_into_max_pool(body: str) -> None:
    assert fuse(model(body)).applied["pad into MaxPool"] == 1


REFUSALS = [
    ("p = Pad(x, pads, one) y = Conv(p, w)", "pad into Conv", "the padding is not zero"),
    ('p = Pad<mode = "edge">(x, pads) y = Conv(p, w)', "pad into Conv", "the padding is not constant"),
    (
        "p = Pad(x, crop) y = Conv(p, w)",
        "pad into Conv",
        "it pads other axes than the spatial ones, or crops",
    ),
    (
        'p = Pad(x, pads) y = Conv<auto_pad = "SAME_UPPER">(p, w)',
        "pad into Conv",
        "auto_pad depends on the padded size",
    ),
    (
        f"p = Pad(x, pads) y = {AVERAGE}, pads = [1, 1, 1, 1]>(p)",
        "pad into AveragePool",
        "the pool does not count its own padding",
    ),
    (f"p = Pad(x, pads, one) y = {AVERAGE}>(p)", "pad into AveragePool", "the padding is not zero"),
    (
        f"p = Pad(x, pads) y = {AVERAGE}, ceil_mode = 1>(p)",
        "pad into AveragePool",
        "ceil_mode, or an opset before 7",
    ),
    (
        f"p = Pad(x, large) y = {AVERAGE}>(p)",
        "pad into AveragePool",
        "the padding is not smaller than the kernel",
    ),
    (f"p = Pad(x, pads) y = {MAX}>(p)", "pad into MaxPool", "the padding may be the maximum"),
    (
        f"p = Pad(x, pads, lowest) y = {MAX}, dilations = [2, 2]>(p)",
        "pad into MaxPool",
        "ceil_mode or dilations",
    ),
    (
        f"p = Pad(x, channels) y = {MAX}>(p)",
        "pad into MaxPool",
        "it pads other axes than the spatial ones, or crops",
    ),
]


@pytest.mark.parametrize(("body", "rule", "reason"), REFUSALS)
def test_refusals(body: str, rule: str, reason: str) -> None:
    assert reasons(fuse(model(body)), rule) == [reason]

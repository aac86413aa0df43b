"""Convolutions and products of integers against ONNX Runtime: equal to the last bit."""

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(4)


def integers(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


GEOMETRIES = {
    "padded": ((1, 3, 9, 10), (20, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "pointwise": ((2, 19, 5, 7), (33, 19, 1, 1), {}),
    "depthwise": ((1, 24, 8, 8), (24, 1, 3, 3), {"group": 24, "pads": [1, 1, 1, 1]}),
    "aligned groups": ((1, 8, 6, 6), (32, 4, 3, 3), {"group": 2}),
    "ragged groups": ((1, 6, 6, 6), (9, 2, 3, 3), {"group": 3, "dilations": [2, 1]}),
    "row": ((1, 3, 20), (5, 3, 3), {"pads": [1, 0]}),
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions(geometry: str) -> None:
    shape, kernel, attributes = GEOMETRIES[geometry]
    nodes = Nodes()
    x, weights = integers(np.uint8, *shape), integers(np.int8, *kernel)
    shift = fixed(np.uint8(120))
    nodes.add("ConvInteger", x, fixed(weights), shift, fixed(np.int8(0)), **attributes)
    scales = fixed(np.linspace(0.001, 0.02, kernel[0]).astype(np.float32))
    bias = fixed(RNG.integers(-999, 999, kernel[0]).astype(np.int32))
    nodes.add(
        "QLinearConv",
        x,
        fixed(np.float32(0.02)),
        shift,
        fixed(weights),
        scales,
        fixed(np.zeros(kernel[0], np.int8)),
        fixed(np.float32(0.1)),
        fixed(np.uint8(10)),
        bias,
        **attributes,
    )
    nodes.check()


def test_sums_beyond_the_range_of_float32() -> None:
    nodes = Nodes()
    x = np.full((1, 600, 3, 3), 255, np.uint8)
    weights = np.full((17, 600, 1, 1), 127, np.int8)
    weights[:, ::7] = 126
    nodes.add("ConvInteger", x, fixed(weights))
    nodes.add("MatMulInteger", np.full((3, 70000), 255, np.uint8), fixed(np.full((70000, 2), -125, np.int8)))
    nodes.check()


def test_weights_at_run_time() -> None:
    nodes = Nodes()
    nodes.add(
        "ConvInteger", integers(np.uint8, 1, 3, 6, 6), integers(np.uint8, 5, 3, 3, 3), fixed(np.uint8(3))
    )
    nodes.check()


def test_products() -> None:
    nodes = Nodes()
    left, right = integers(np.uint8, 2, 7, 19), integers(np.int8, 19, 33)
    nodes.add("MatMulInteger", left, fixed(right), fixed(np.uint8(100)), fixed(np.int8(-3)))
    nodes.add("MatMulInteger", left, right)
    scales = fixed(np.linspace(0.01, 0.05, 33).astype(np.float32)), fixed(np.zeros(33, np.int8))
    fixed_parts = fixed(np.float32(0.02)), fixed(np.uint8(130))
    target = fixed(np.float32(0.3)), fixed(np.uint8(40))
    nodes.add("QLinearMatMul", left, *fixed_parts, fixed(right), *scales, *target)
    nodes.check()


def test_followers_are_fused() -> None:
    nodes = Nodes()
    x, weights = integers(np.uint8, 1, 16, 5, 5), integers(np.int8, 16, 16, 3, 3)
    sums = nodes.add("ConvInteger", x, fixed(weights))
    nodes.add("Mul", nodes.add("Cast", sums, to=1), fixed(np.float32(0.25)))
    nodes.check()

"""QuantizeLinear and its relatives, and products of integers, against ONNX Runtime."""

import numpy as np
import pytest

from graphopt.backends.lower.quantize import dequantize_array
from tests.backends.lower.harness import Nodes, compiled, fixed
from tests.conftest import make_model

RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def integers(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
def test_quantize_and_back(dtype: type) -> None:
    nodes = Nodes()
    scale, shift = fixed(np.float32(0.5)), fixed(dtype(3))
    halves = (np.arange(-301, 300, dtype=np.float32) * np.float32(0.25)).reshape(1, 601)
    nodes.add("QuantizeLinear", halves, scale, shift)
    nodes.add("QuantizeLinear", floats(2, 17) * 1e6, scale, shift)
    nodes.add("DequantizeLinear", integers(dtype, 3, 17), scale, shift)
    per_axis = fixed(np.array([0.5, 0.1, 2], np.float32)), fixed(np.array([1, 0, 9], dtype))
    nodes.add("QuantizeLinear", floats(2, 3, 5) * 9, *per_axis, axis=1)
    nodes.add("DequantizeLinear", integers(dtype, 2, 5, 3), *per_axis, axis=-1)
    nodes.check()


def test_blocks_and_run_time_parameters() -> None:
    nodes = Nodes()
    scales, shifts = np.abs(floats(2, 3, 5)) + 0.5, integers(np.int8, 2, 3, 5)
    nodes.add("QuantizeLinear", floats(2, 6, 5) * 50, fixed(scales), fixed(shifts), axis=1, block_size=2)
    nodes.add(
        "DequantizeLinear", integers(np.int8, 2, 6, 5), fixed(scales), fixed(shifts), axis=1, block_size=2
    )
    nodes.add("QuantizeLinear", floats(2, 6) * 50, np.full((1,), 0.5, np.float32)[0:1], None)
    nodes.add("DequantizeLinear", integers(np.int32, 2, 6), fixed(np.float32(0.5)))
    nodes.check()


def test_islands_around_a_convolution() -> None:
    nodes = Nodes()
    scale, shift = fixed(np.float32(0.05)), fixed(np.uint8(128))
    image = nodes.add(
        "DequantizeLinear", nodes.add("QuantizeLinear", floats(1, 3, 9, 9), scale, shift), scale, shift
    )
    weights = nodes.add(
        "DequantizeLinear",
        fixed(integers(np.int8, 20, 3, 3, 3)),
        fixed(np.full(20, 0.01, np.float32)),
        fixed(np.zeros(20, np.int8)),
        axis=0,
    )
    nodes.add(
        "QuantizeLinear", nodes.add("Conv", image, weights), fixed(np.float32(0.25)), fixed(np.uint8(99))
    )
    nodes.check()


def test_nan_becomes_the_smallest_value() -> None:
    model = make_model(
        "agraph (float[3] x) => (uint8[3] y) { y = QuantizeLinear(x, s, z) }", s=np.float32(1), z=np.uint8(7)
    )
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(compiled(model, {"x": x})[0], [0, 255, 0])


def test_dynamic_quantization() -> None:
    for x in (floats(7, 19), np.abs(floats(50)) + 1, np.zeros((3, 3), np.float32)):
        nodes = Nodes()
        nodes.add("DynamicQuantizeLinear", x, outputs=3)
        nodes.check()


def test_dequantized_constants() -> None:
    x = integers(np.int8, 4, 5)
    scale, shift = np.abs(floats(2, 5)), integers(np.int8, 2, 5)
    wanted = (x.astype(np.int32) - np.repeat(shift, 2, 0)).astype(np.float32) * np.repeat(scale, 2, 0)
    np.testing.assert_array_equal(dequantize_array(x, scale, shift, 0, 2), wanted)

"""Pooling over ranks, types, geometries and the attributes that decide what counts."""

from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, check, fixed

RNG = np.random.default_rng(0)

GEOMETRIES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 13, 17), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 17, 7, 57), {"kernel_shape": [2, 3], "strides": [1, 4], "pads": [1, 0, 0, 2], "ceil_mode": 1}),
    ((1, 8, 14, 14), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 8, 14, 15), {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": "SAME_UPPER"}),
    ((1, 8, 14, 15), {"kernel_shape": [4, 2], "strides": [3, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 8, 14, 15), {"kernel_shape": [3, 3], "auto_pad": "VALID"}),
    ((1, 5, 9, 12), {"kernel_shape": [3, 3], "dilations": [2, 3], "pads": [1, 2, 1, 2]}),
    ((1, 4, 1, 1), {"kernel_shape": [1, 1]}),
    ((2, 5, 31), {"kernel_shape": [5], "strides": [3], "pads": [2, 1]}),
    ((1, 2, 6, 7, 8), {"kernel_shape": [3, 2, 3], "strides": [2, 1, 2], "pads": [1, 0, 1, 1, 1, 0]}),
]


def normal(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return (RNG.standard_normal(shape) * 40).astype(dtype)


def test_maximum() -> None:
    nodes = Nodes()
    for shape, attributes in GEOMETRIES:
        nodes.add("Relu", nodes.add("MaxPool", normal(shape), **attributes))
    nodes.check()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float64", "float16"])
def test_maximum_of_other_types(dtype: str) -> None:
    nodes = Nodes(opset=12)
    for shape, attributes in GEOMETRIES[1::2]:
        nodes.add("MaxPool", normal(shape, dtype), **attributes)
    nodes.check()


@pytest.mark.parametrize("storage_order", [0, 1])
def test_positions_of_maxima(storage_order: int) -> None:
    nodes = Nodes()
    for shape, attributes in GEOMETRIES:
        nodes.add("MaxPool", normal(shape), outputs=2, storage_order=storage_order, **attributes)
    nodes.check()


@pytest.mark.parametrize("include", [0, 1])
def test_average(include: int) -> None:
    nodes = Nodes()
    for shape, attributes in GEOMETRIES:
        nodes.add("Relu", nodes.add("AveragePool", normal(shape), count_include_pad=include, **attributes))
    nodes.check()


def test_average_of_halves_is_summed_in_float32() -> None:
    nodes = Nodes()
    nodes.add("AveragePool", normal((1, 3, 40, 40), "float16"), kernel_shape=[40, 40])
    nodes.check_with_reference()


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms(p: int) -> None:
    nodes = Nodes()
    for shape, attributes in GEOMETRIES:
        if "ceil_mode" not in attributes:
            nodes.add("LpPool", normal(shape), p=p, **attributes)
    nodes.add("GlobalLpPool", normal((2, 3, 5, 7)), p=p)
    nodes.check()


def test_unpooling_inverts_pooling() -> None:
    nodes = Nodes()
    x = normal((2, 3, 8, 6))
    nodes.add("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    nodes.add("MaxUnpool", "MaxPool0_0", "MaxPool0_1", kernel_shape=[2, 2], strides=[2, 2])
    nodes.check()


def test_unpooling_into_another_shape_is_refused() -> None:
    nodes = Nodes()
    operands = (normal((1, 1, 2, 2)), np.array([[[[0, 2], [8, 10]]]]), fixed(np.array([1, 1, 5, 5])))
    nodes.add("MaxUnpool", *operands, kernel_shape=[2, 2], strides=[2, 2])
    proto = nodes.proto()
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("MaxUnpool0_0", 1, (1, 1, 5, 5)))
    with pytest.raises(UnsupportedError, match="output_shape"):
        check(proto, nodes.feeds, expected=[np.zeros((1, 1, 5, 5), np.float32)])


def test_a_window_beyond_the_input_is_refused() -> None:
    nodes = Nodes()
    nodes.add("MaxPool", normal((1, 1, 56)), kernel_shape=[3], strides=[3], pads=[0, 2], ceil_mode=1)
    with pytest.raises(UnsupportedError, match="ceil_mode"):
        nodes.check_with_reference()

"""Products and convolutions of bytes on tensor cores next to ONNX Runtime, on awkward shapes; and what does not suit them."""

import numpy as np
import pytest

from graphopt.backends.cuda.byte_convolution import terms_of
from graphopt.backends.cuda.tensor_tiles import GROUPS, WARPS, TensorTile
from graphopt.backends.targets import Target
from tests.backends.cuda.test_tensor_cores import kernels
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(11)


def integers(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


def add_product(nodes: Nodes, left: np.ndarray, right: np.ndarray, zero: int) -> None:
    scales = np.float32(0.02), np.float32(0.01), np.float32(0.3)
    nodes.add(
        "QLinearMatMul",
        left,
        *map(fixed, (scales[0], left.dtype.type(zero), right, scales[1], right.dtype.type(0))),
        *map(fixed, (scales[2], left.dtype.type(7))),
    )


def add_convolution(
    nodes: Nodes, x: np.ndarray, weights: np.ndarray, zero: int, weights_zero: int = 0, **attributes: object
) -> str:
    scale = fixed(RNG.uniform(0.001, 0.003, len(weights)).astype(np.float32))
    zeros = fixed(np.full(len(weights), weights_zero, weights.dtype))
    bias = fixed(RNG.integers(-500, 500, len(weights)).astype(np.int32))
    parameters = fixed(np.float32(0.05)), fixed(x.dtype.type(zero))
    result = fixed(np.float32(0.4)), fixed(x.dtype.type(5))
    return nodes.add("QLinearConv", x, *parameters, fixed(weights), scale, zeros, *result, bias, **attributes)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_products(gpu: Target, dtype: type) -> None:
    nodes = Nodes()
    add_product(nodes, integers(dtype, 70, 80), integers(np.int8, 80, 51), 9)
    add_product(nodes, integers(dtype, 2, 3, 144), integers(np.int8, 144, 8), 0)
    nodes.add("MatMulInteger", integers(dtype, 5, 64), fixed(integers(np.int8, 64, 40)), fixed(dtype(3)))
    assert kernels(nodes) == [("gemm", True)] * 3
    nodes.check(gpu)


@pytest.mark.parametrize(
    ("depth", "columns", "dtype"), [(24, 16, np.int8), (16, 7, np.int8), (32, 16, np.uint8)]
)
def test_products_that_do_not_suit(gpu: Target, depth: int, columns: int, dtype: type) -> None:
    """No whole chunks, few columns, and weights that are no bytes without their zero point."""
    nodes = Nodes()
    add_product(nodes, integers(np.uint8, 9, depth), integers(dtype, depth, columns), 9)
    assert ("gemm", True) not in kernels(nodes)
    nodes.check(gpu)


@pytest.mark.parametrize(("dtype", "zero"), [(np.int8, -3), (np.uint8, 128), (np.uint8, 0)])
def test_convolutions(gpu: Target, dtype: type, zero: int) -> None:
    nodes = Nodes()
    add_convolution(
        nodes,
        integers(dtype, 2, 3, 15, 11),
        integers(np.int8, 16, 3, 7, 5),
        zero,
        pads=[3, 2, 3, 2],
        strides=[2, 3],
    )
    add_convolution(
        nodes, integers(dtype, 1, 32, 8, 8), integers(np.int8, 24, 16, 3, 3), zero, group=2, pads=[1, 1, 1, 1]
    )
    add_convolution(nodes, integers(dtype, 1, 24, 6, 9), integers(np.int8, 20, 24, 1, 1), zero)
    add_convolution(
        nodes, integers(dtype, 1, 16, 12, 12), integers(np.int8, 8, 16, 3, 3), zero, dilations=[2, 3]
    )
    assert [each for each in kernels(nodes) if each[0] == "integer_conv"] == [("integer_conv", True)] * 4
    nodes.check(gpu)


def test_depthwise(gpu: Target) -> None:
    nodes = Nodes()
    add_convolution(
        nodes,
        integers(np.uint8, 2, 24, 9, 7),
        integers(np.int8, 24, 1, 3, 3),
        131,
        group=24,
        pads=[1, 1, 1, 1],
    )
    assert "integer_depthwise" in [name for name, _ in kernels(nodes)]
    nodes.check(gpu)


@pytest.mark.parametrize("weights_zero", [1, 117, 255])
def test_weights_that_are_no_bytes_without_their_zero_point(gpu: Target, weights_zero: int) -> None:
    """They are sums of two, whose products are added up on tensor cores as well."""
    nodes = Nodes()
    for channels, filters, groups, kernel in (
        (24, 20, 1, 1),
        (11, 24, 1, 3),
        (32, 16, 2, 3),
        (24, 24, 24, 3),
    ):
        weights = integers(np.uint8, filters, channels // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        add_convolution(
            nodes, integers(np.uint8, 2, channels, 7, 9), weights, 131, weights_zero, group=groups, pads=pads
        )
    found = kernels(nodes)
    assert found.count(("integer_conv", True)) == 3
    assert "integer_depthwise" in [name for name, _ in found]
    nodes.check(gpu)


@pytest.mark.parametrize(
    ("least", "most", "count"), [(-128, 127, 1), (-255, 0, 2), (-1, 254, 2), (0, 255, 0)]
)
def test_terms_of_weights(least: int, most: int, count: int) -> None:
    weights = np.arange(least, most + 1, dtype=np.int32)
    terms = terms_of(weights)
    assert len(terms or []) == count
    assert terms is None or np.array_equal(sum(term.astype(np.int32) for term in terms), weights)


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "dtype"),
    [(16, 8, 2, np.int8), (16, 7, 1, np.int8), (16, 8, 1, np.uint8)],
)
def test_convolutions_that_do_not_suit(
    gpu: Target, channels: int, filters: int, groups: int, dtype: type
) -> None:
    nodes = Nodes()
    add_convolution(
        nodes,
        integers(np.uint8, 1, channels, 5, 5),
        integers(dtype, filters, channels // groups, 3, 3),
        4,
        group=groups,
    )
    assert ("integer_conv", True) not in kernels(nodes)
    nodes.check(gpu)


def test_a_chain_is_moved_at_its_ends_alone(gpu: Target) -> None:
    nodes = Nodes()
    first = add_convolution(nodes, integers(np.uint8, 1, 8, 9, 9), integers(np.int8, 24, 8, 3, 3), 3)
    second = _follow(nodes, first, integers(np.int8, 24, 24, 1, 1))
    _follow(nodes, second, integers(np.int8, 16, 24, 3, 3))
    assert [name for name, _ in kernels(nodes)][:4] == [
        "copy",
        "integer_conv",
        "integer_conv",
        "integer_conv",
    ]
    nodes.check(gpu)


def _follow(nodes: Nodes, x: str, weights: np.ndarray) -> str:
    scales = map(fixed, (np.float32(0.05), np.uint8(5)))
    rest = map(fixed, (weights, np.float32(0.002), np.int8(0), np.float32(0.4), np.uint8(5)))
    return nodes.add("QLinearConv", x, *scales, *rest)


@pytest.mark.slow
@pytest.mark.parametrize("family", [WARPS, GROUPS], ids=["warps", "groups"])
def test_products_by_every_tile(
    gpu: Target, tiles: list[tuple[TensorTile, int]], family: tuple[TensorTile, ...]
) -> None:
    tiles += [(tile, i % 2 + 1) for i, tile in enumerate(family)]
    nodes = Nodes()
    for i in range(len(family)):
        add_product(nodes, integers(np.uint8, 70 + i, 400), integers(np.int8, 400, 51), 100)
    nodes.check(gpu)

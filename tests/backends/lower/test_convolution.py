"""Conv over ranks, groups, types, geometries, and weights known at compile time or at run time."""

from typing import Any

import numpy as np
import pytest

from graphopt.backends.targets import TARGETS
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)


def normal(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def add_conv(
    nodes: Nodes,
    shape: tuple[int, ...],
    filters: int,
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    dtype: str = "float32",
    constant: bool = True,
    **attributes: Any,
) -> str:
    """A Conv with bias."""
    hold = fixed if constant else np.asarray
    weights = normal((filters, shape[1] // group, *kernel), dtype) / np.asarray(np.prod(kernel) ** 0.5, dtype)
    operands = (normal(shape, dtype), hold(weights), hold(normal((filters,), dtype)))
    return nodes.add("Conv", *operands, group=group, **attributes)


GEOMETRIES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 7, 13), (3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 17, 13, 17), (3, 3), {"pads": [0, 2, 1, 0], "strides": [2, 1]}),
    ((1, 8, 17, 56), (5, 5), {"pads": [2, 2, 2, 2], "strides": [2, 2]}),
    ((1, 3, 23, 23), (7, 7), {"pads": [3, 3, 3, 3], "strides": [3, 2]}),
    ((1, 5, 29, 29), (11, 11), {"strides": [4, 4], "pads": [2, 2, 2, 2]}),
    ((1, 6, 9, 40), (3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ((2, 24, 13, 13), (1, 1), {}),
    ((1, 24, 13, 13), (1, 1), {"strides": [2, 2]}),
    ((1, 4, 1, 149), (1, 5), {"pads": [0, 2, 0, 2]}),
    ((1, 4, 9, 1), (3, 1), {}),
    ((1, 4, 2, 2), (3, 3), {"pads": [2, 2, 2, 2]}),
    ((1, 4, 9, 10), (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 4, 10, 9), (4, 4), {"auto_pad": "SAME_LOWER", "strides": [3, 1]}),
    ((1, 4, 10, 9), (4, 4), {"auto_pad": "VALID"}),
    ((2, 6, 40), (3,), {"pads": [1, 1]}),
    ((1, 1, 2000), (64,), {"strides": [16]}),
    ((1, 2, 6, 7, 20), (3, 3, 3), {"pads": [1, 1, 1, 1, 1, 1]}),
    ((1, 3, 5, 9, 8), (2, 3, 2), {"strides": [1, 2, 2], "pads": [0, 1, 1, 1, 0, 0]}),
]


@pytest.mark.parametrize(("filters", "constant"), [(1, True), (36, True), (3, False)])
def test_geometries(filters: int, constant: bool) -> None:
    nodes = Nodes()
    for shape, kernel, attributes in GEOMETRIES:
        add_conv(nodes, shape, filters, kernel, constant=constant, **attributes)
    nodes.check()


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v2"])
def test_narrower_targets(target: str) -> None:
    nodes = Nodes()
    for shape, kernel, attributes in GEOMETRIES[::4]:
        add_conv(nodes, shape, 3, kernel, **attributes)
        add_conv(nodes, shape, 20, kernel, **attributes)
    nodes.check(TARGETS[target])


@pytest.mark.parametrize(
    ("channels", "filters", "group"),
    [(24, 24, 24), (17, 17, 17), (8, 24, 8), (24, 28, 4), (32, 64, 2), (6, 4, 2), (100, 100, 100)],
)
def test_groups(channels: int, filters: int, group: int) -> None:
    nodes = Nodes()
    for constant in (True, False):
        add_conv(
            nodes, (2, channels, 13, 17), filters, (3, 3), group=group, constant=constant, pads=[1, 1, 1, 1]
        )
        add_conv(nodes, (1, channels, 7, 7), filters, (1, 1), group=group, constant=constant)
        add_conv(
            nodes, (1, channels, 30), filters, (5,), group=group, constant=constant, strides=[2], pads=[2, 1]
        )
    nodes.check()


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_dtypes(dtype: str) -> None:
    nodes = Nodes()
    add_conv(nodes, (1, 8, 9, 20), 20, (3, 3), dtype=dtype, pads=[1, 1, 1, 1])
    nodes.check_with_reference()


def test_no_bias_and_empty_batch() -> None:
    nodes = Nodes()
    for batch in (0, 1):
        for filters in (1, 20):
            nodes.add("Conv", normal((batch, 5, 6, 7)), fixed(normal((filters, 5, 3, 3))))
    nodes.check()


def test_following_nodes_are_computed_in_the_kernel() -> None:
    nodes = Nodes()
    for filters, group in ((20, 1), (2, 1), (28, 4), (8, 8)):
        result = add_conv(nodes, (2, 8, 9, 11), filters, (3, 3), group=group, pads=[1, 1, 1, 1])
        scaled = nodes.add("Mul", result, normal((1, filters, 1, 1)))
        nodes.add("Relu", nodes.add("Add", scaled, normal((2, filters, 9, 11))))
    nodes.check()


def test_chains_pass_on_their_layout() -> None:
    nodes = Nodes()
    first = add_conv(nodes, (1, 3, 20, 20), 24, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    deep = nodes.add("Conv", first, fixed(normal((24, 1, 3, 3))), group=24, pads=[1, 1, 1, 1])
    few = nodes.add("Conv", deep, fixed(normal((2, 24, 3, 3))))
    nodes.add("Conv", few, fixed(normal((20, 2, 1, 1))))
    nodes.check()


def test_small_images_and_filters_that_leave_a_smaller_tile() -> None:
    """Tiles of several rows, with their borders; 5, 7 and 13 vectors of filters; images read in parts."""
    nodes = Nodes()
    for side, filters, attributes in (
        (7, 80, {"pads": [1, 1, 1, 1]}),
        (5, 112, {"pads": [1, 0, 2, 1]}),
        (9, 208, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        (8, 48, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        (4, 32, {}),
    ):
        add_conv(nodes, (2, 33, side, side), filters, (3, 3), **attributes)
    add_conv(nodes, (1, 160, 31, 31), 24, (3, 3), pads=[1, 1, 1, 1])
    add_conv(nodes, (1, 200, 29, 27), 40, (1, 1))
    nodes.check()

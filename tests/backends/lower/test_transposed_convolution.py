"""ConvTranspose over ranks, groups, geometries, and weights known at compile time or at run time."""

from typing import Any

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)


def normal(shape: tuple[int, ...]) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


GEOMETRIES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 7, 13), (3, 3), {}),
    ((2, 24, 7, 13), (2, 2), {"strides": [2, 2]}),
    ((1, 5, 7, 6), (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 5, 7, 6), (3, 3), {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 1]}),
    ((1, 4, 5, 6), (3, 2), {"strides": [3, 5], "output_padding": [2, 1]}),
    ((1, 4, 5, 6), (2, 3), {"dilations": [2, 3]}),
    ((1, 4, 5, 6), (3, 3), {"dilations": [2, 2], "strides": [2, 4]}),
    ((1, 4, 5, 6), (3, 3), {"dilations": [3, 2], "strides": [2, 3], "pads": [1, 2, 0, 1]}),
    ((1, 4, 5, 6), (3, 3), {"strides": [2, 2], "output_shape": [11, 12]}),
    ((1, 4, 5, 6), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 4, 5, 6), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 4, 5, 6), (3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
    ((2, 4, 17), (5,), {"strides": [3], "pads": [2, 1]}),
    ((1, 4, 3, 4, 5), (2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 0, 1, 0, 1]}),
]


@pytest.mark.parametrize(("filters", "constant"), [(18, True), (2, False)])
def test_geometries(filters: int, constant: bool) -> None:
    hold = fixed if constant else np.asarray
    nodes = Nodes()
    for shape, kernel, attributes in GEOMETRIES:
        weights = normal((shape[1], filters, *kernel))
        nodes.add("ConvTranspose", normal(shape), hold(weights), hold(normal((filters,))), **attributes)
    nodes.check()


@pytest.mark.parametrize(("filters", "group"), [(1, 6), (2, 2), (16, 2)])
def test_groups(filters: int, group: int) -> None:
    nodes = Nodes()
    for hold in (fixed, np.asarray):
        weights = normal((6, filters, 3, 3))
        nodes.add("ConvTranspose", normal((2, 6, 5, 7)), hold(weights), group=group, strides=[2, 2])
    nodes.check()


def test_following_nodes_are_computed_in_the_kernel() -> None:
    nodes = Nodes()
    for filters in (1, 20):
        weights = fixed(normal((8, filters, 2, 2)))
        result = nodes.add("ConvTranspose", normal((1, 8, 5, 6)), weights, strides=[2, 2])
        nodes.add("Relu", nodes.add("Add", result, normal((filters, 1, 1))))
    nodes.check()

"""DeformConv with every optional operand, compared with ONNX's reference implementation."""

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("group", "offset_group"), [(1, 1), (2, 1), (1, 2)])
def test_groups(group: int, offset_group: int) -> None:
    nodes = Nodes()
    x, weights, offsets = normal(2, 4, 7, 6), normal(6, 4 // group, 3, 2), normal(2, 12 * offset_group, 5, 5)
    bias, mask = normal(6), normal(2, 6 * offset_group, 5, 5)
    for extra in ((), (bias,), (bias, mask)):
        operands = (x, weights, offsets, *extra)
        nodes.add("DeformConv", *operands, group=group, offset_group=offset_group, kernel_shape=[3, 2])
    nodes.check()


def test_strides_pads_and_dilations() -> None:
    nodes = Nodes()
    geometry = {"strides": [2, 1], "pads": [2, 1, 2, 1], "dilations": [2, 1]}
    nodes.add("DeformConv", normal(1, 3, 9, 8), normal(2, 3, 3, 3), normal(1, 18, 5, 8) * 3, **geometry)
    nodes.check()

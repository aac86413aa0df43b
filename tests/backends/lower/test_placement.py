"""Concats of channels copy nothing where the parts can be computed in place."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.kernels.core import AVX512
from graphopt.backends.lower.graph import lower_model
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)


def conv(nodes: Nodes, x: str | np.ndarray, channels: int, filters: int) -> str:
    weights = RNG.standard_normal((filters, channels, 1, 1)).astype(np.float32)
    return nodes.add("Relu", nodes.add("Conv", x, fixed(weights / channels**0.5)))


def image(channels: int) -> np.ndarray:
    return RNG.standard_normal((2, channels, 6, 5)).astype(np.float32)


def copies(nodes: Nodes) -> int:
    """Kernels that only put parts of a Concat into their places."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    return sum("Concat" in kernel.layer for kernel in lower_model(model, AVX512).kernels())


def chain(nodes: Nodes) -> str:
    """Convolutions that read all results so far, as in DenseNet."""
    x = conv(nodes, image(8), 8, 32)
    for channels in (32, 48, 64):
        x = nodes.add("Concat", x, conv(nodes, x, channels, 16), axis=1)
    return nodes.add("MaxPool", x, kernel_shape=[1, 1])


def test_branches_and_chains() -> None:
    nodes = Nodes()
    x = conv(nodes, image(8), 8, 16)
    branches = [conv(nodes, x, 16, 32), nodes.add("MaxPool", x, kernel_shape=[1, 1]), x]
    nodes.add("Concat", *branches, axis=1)
    nodes.add("Concat", branches[0], branches[0], axis=-3)
    nodes.add("Concat", branches[0], conv(nodes, x, 16, 20), axis=1)
    nodes.add("Concat", image(16), branches[1], axis=1)
    chain(nodes)
    nodes.check()


def test_nothing_is_copied_in_chains() -> None:
    nodes = Nodes()
    chain(nodes)
    assert copies(nodes) == 0


def test_parts_are_copied_where_they_cannot_be_in_place() -> None:
    """A part in the middle of a block, and the second use of a value."""
    for filters, expected in ((20, 2), (32, 1)):
        nodes = Nodes()
        first = conv(nodes, image(8), 8, filters)
        joined = nodes.add("Concat", first, first, axis=1)
        nodes.add("MaxPool", joined, kernel_shape=[1, 1])
        assert copies(nodes) == expected


def cross_stage(nodes: Nodes, *order: int) -> str:
    """Channels parted in two halves, one refined, all joined again: parts 0 and 1 are halves, 2 is the refined one."""
    x = conv(nodes, image(8), 8, 64)
    halves = [
        nodes.add("Slice", x, *(fixed(np.array([i])) for i in (start, start + 32, 1))) for start in (0, 32)
    ]
    parts = [*halves, conv(nodes, halves[1], 32, 32)]
    joined = nodes.add("Concat", *(parts[i] for i in order), axis=1)
    return conv(nodes, joined, 32 * len(order), 16)


@pytest.mark.parametrize(
    ("order", "expected"), [((0, 1, 2), 0), ((2, 0, 1), 0), ((1, 0, 2), 2), ((0, 2, 1), 2), ((0, 2), 1)]
)
def test_what_is_parted_lives_where_it_is_joined(order: tuple[int, ...], expected: int) -> None:
    nodes = Nodes()
    cross_stage(nodes, *order)
    assert copies(nodes) == expected
    nodes.check()


def rows(nodes: Nodes, channels: int, side: int) -> str:
    """An image that lies in memory pixel by pixel, enlarged, as decoders of segmentation models have it."""
    flat = RNG.standard_normal((1, side * side, channels)).astype(np.float32)
    turned = nodes.add("Transpose", nodes.add("Relu", flat), perm=[0, 2, 1])
    small = nodes.add("Reshape", turned, fixed(np.array([1, channels, side, side])))
    scales = fixed(np.array([1, 1, 8 / side, 8 / side], np.float32))
    return nodes.add("Resize", small, None, scales, mode="linear")


def blocked_copies(nodes: Nodes) -> list[str]:
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    return [kernel.name for kernel in lower_model(model, AVX512).kernels() if kernel.name == "to_blocks"]


def test_what_convolutions_read_is_put_together_in_blocks() -> None:
    nodes = Nodes()
    joined = nodes.add("Concat", rows(nodes, 32, 4), rows(nodes, 16, 8), axis=1)
    conv(nodes, joined, 48, 256)
    assert blocked_copies(nodes) == []
    nodes.check()


def test_what_others_read_too_is_put_together_in_rows() -> None:
    nodes = Nodes()
    joined = nodes.add("Concat", rows(nodes, 32, 4), rows(nodes, 16, 8), axis=1)
    conv(nodes, joined, 48, 256)
    nodes.add("ReduceSum", joined, fixed(np.array([3])))
    assert blocked_copies(nodes) == ["to_blocks"]
    nodes.check()


def narrow(nodes: Nodes, x: str | np.ndarray, channels: int, filters: int) -> str:
    """A convolution of 3 x 3."""
    weights = RNG.standard_normal((filters, channels, 3, 3)).astype(np.float32) / channels
    return nodes.add("Relu", nodes.add("Conv", x, fixed(weights), pads=[1, 1, 1, 1]))


def by_rows(nodes: Nodes) -> int:
    """Convolutions with lanes along rows."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    return sum("rows" in kernel.name for kernel in lower_model(model, AVX512).kernels())


def test_chains_of_few_channels_keep_lanes_along_rows() -> None:
    nodes = Nodes()
    x = narrow(nodes, RNG.standard_normal((1, 3, 32, 32)).astype(np.float32), 3, 8)
    for _ in range(3):
        x = nodes.add("Add", x, narrow(nodes, x, 8, 8))
    narrow(nodes, x, 8, 64)
    assert by_rows(nodes) == 4
    nodes.check()


def test_few_channels_that_wide_layers_read_are_put_into_blocks() -> None:
    nodes = Nodes()
    x = narrow(nodes, RNG.standard_normal((1, 3, 32, 32)).astype(np.float32), 3, 8)
    narrow(nodes, x, 8, 64)
    assert by_rows(nodes) == 0
    nodes.check()

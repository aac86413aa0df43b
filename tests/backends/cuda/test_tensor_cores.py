"""Kernels on tensor cores next to ONNX Runtime, tile by tile, on awkward shapes; and what does not suit them."""

import json

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.functions import DEFINITIONS
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.tensor_tiles import (
    AMPERE,
    GROUPS,
    HOPPER,
    WARPS,
    TensorTile,
    chip_of,
    choose_tensor_tile,
)
from graphopt.backends.kernels.core import GPU as CORE
from graphopt.backends.kernels.core import GPU_HOPPER
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import Target
from tests.backends.cuda.test_operators import random
from tests.backends.lower.harness import Nodes, fixed


def halves(*shape: int) -> np.ndarray:
    return random(*shape, dtype="float16")


def kernels(nodes: Nodes) -> list[tuple[str, bool]]:
    """The name of every kernel, and whether it multiplies on tensor cores."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    found = lower_model(model, GPU_HOPPER, machine=GPU).kernels()
    texts = [(kernel.name, "".join(json.loads(str(kernel.function.attrs[DEFINITIONS])))) for kernel in found]
    return [(name, "mma" in text) for name, text in texts]


WIDE_GROUPS = tuple(
    TensorTile(*sides, 3)
    for sides in ((64, 48), (64, 96), (128, 80), (128, 192), (192, 96), (192, 256), (256, 64), (64, 256))
)
FEW_ROWS = tuple(
    TensorTile(*sides) for sides in ((16, 64, 8, 16, 32), (32, 32, 2, 16, 32), (32, 128, 5, 32, 64))
)
FAMILIES = pytest.mark.parametrize(
    "family", [WARPS, GROUPS, WIDE_GROUPS, FEW_ROWS], ids=["warps", "groups", "wide", "few rows"]
)


@pytest.mark.slow
@FAMILIES
def test_products_by_every_tile(
    gpu: Target, tiles: list[tuple[TensorTile, int]], family: tuple[TensorTile, ...]
) -> None:
    nodes = Nodes()
    for i, tile in enumerate(family):
        parts = i % 2 + 1
        tiles.append((tile, parts))
        nodes.add("MatMul", halves(70 + i, 200), fixed(halves(200, 51)))
    nodes.check(gpu)
    assert not tiles


@pytest.mark.slow
@FAMILIES
def test_convolutions_by_every_tile(
    gpu: Target, tiles: list[tuple[TensorTile, int]], family: tuple[TensorTile, ...]
) -> None:
    nodes = Nodes()
    for i, tile in enumerate(family):
        tiles.append((tile, i % 2 + 1))
        nodes.add("Conv", halves(1, 11, 9, 7 + i), fixed(halves(24, 11, 3, 3)), pads=[1, 0, 1, 2])
    nodes.check(gpu)


CLUSTERS = [(TensorTile(64, 32, 8), 8), (TensorTile(128, 96, 4), 4), (TensorTile(64, 64, 4), 2)]
"""Tiles of which each team stores less than, as much as, and more than one run a thread."""


def test_teams_of_a_cluster_add_up_their_parts(gpu: Target, tiles: list[tuple[TensorTile, int]]) -> None:
    """Of products, of several too, and of convolutions whose results lie channel by channel or pixel by pixel."""
    nodes = Nodes()
    for i, tile in enumerate(CLUSTERS):
        tiles += [tile] * 4
        nodes.add("MatMul", halves(70 + i, 520), fixed(halves(520, 51)))
        nodes.add("MatMul", halves(2, 70, 512), fixed(halves(512, 64)))
        x = nodes.add("Conv", halves(2, 64, 9, 7 + i), fixed(halves(24, 64, 3, 3)), pads=[1, 0, 1, 2])
        nodes.add("Conv", x, fixed(halves(64, 24, 5, 5)), pads=[2, 2, 2, 2])
    assert sum(name != "copy" for name, _ in kernels(nodes)) == 4 * len(CLUSTERS)
    tiles += [tile for tile in CLUSTERS for _ in range(4)]
    nodes.check(gpu)
    assert not tiles


def test_columns_that_are_neighbours(gpu: Target) -> None:
    """Operands of run time, as attention multiplies them."""
    nodes = Nodes()
    nodes.add("MatMul", halves(3, 2, 33, 40), halves(2, 40, 72))
    nodes.add("MatMul", halves(65, 16), halves(16, 200))
    assert kernels(nodes) == [("gemm", True)] * 2
    nodes.check(gpu)


def test_rows_that_are_few(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("MatMul", halves(1, 72), fixed(halves(72, 10)))
    assert kernels(nodes)[0] == ("gemm", True)
    nodes.check(gpu)


@pytest.mark.parametrize(("depth", "columns"), [(20, 16), (16, 7), (7, 64)])
def test_products_without_whole_chunks_go_elsewhere(gpu: Target, depth: int, columns: int) -> None:
    nodes = Nodes()
    nodes.add("MatMul", halves(40, depth), halves(depth, columns))
    assert ("gemm", True) not in kernels(nodes)
    nodes.check(gpu)


def test_convolutions(gpu: Target) -> None:
    nodes = Nodes()
    bias = fixed(halves(16))
    nodes.add(
        "Conv", halves(2, 3, 15, 11), fixed(halves(16, 3, 7, 5)), bias, pads=[3, 2, 3, 2], strides=[2, 3]
    )
    nodes.add("Conv", halves(1, 16, 8, 8), fixed(halves(32, 8, 3, 3)), group=2, pads=[1, 1, 1, 1])
    nodes.add("Conv", halves(1, 24, 6, 9), fixed(halves(16, 24, 1, 1)), bias)
    nodes.add("Conv", halves(1, 8, 12, 12), fixed(halves(8, 8, 3, 3)), dilations=[2, 3])
    nodes.add("Conv", halves(2, 8, 19), fixed(halves(16, 8, 4)), bias, pads=[3, 1])
    nodes.add("Conv", halves(1, 8, 4, 5, 6), fixed(halves(8, 8, 2, 3, 1)), pads=[1, 1, 0, 0, 1, 1])
    nodes.add("Conv", halves(1, 64, 1), fixed(halves(64, 64, 3)), pads=[1, 1])
    nodes.add("Conv", halves(1, 128, 2), fixed(halves(64, 128, 3)), pads=[1, 1], strides=[2])
    nodes.add("Conv", halves(1, 64, 1), fixed(halves(64, 64, 1)), pads=[1, 1])
    assert ("conv", False) not in kernels(nodes)
    nodes.check(gpu)


LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
"""Permutations that bring channels to the end, and back."""


def test_channels_that_come_last_are_read_and_stored_as_they_lie(gpu: Target) -> None:
    """As those of models from frameworks that have them there, with elementwise operators behind the convolution."""
    nodes = Nodes()
    x = nodes.add("Transpose", halves(2, 7, 9, 16), perm=FIRST)
    x = nodes.add("Conv", x, fixed(halves(24, 16, 3, 3)), fixed(halves(24)), pads=[1, 1, 1, 1])
    nodes.add("Transpose", nodes.add("Relu", x), perm=LAST)
    x = nodes.add("Slice", halves(1, 5, 6, 48), *map(fixed, map(np.array, ([16], [40], [3]))))
    x = nodes.add("Conv", nodes.add("Transpose", x, perm=FIRST), fixed(halves(8, 24, 1, 1)))
    nodes.add("Transpose", x, perm=LAST)
    assert kernels(nodes) == [("conv", True)] * 2
    nodes.check(gpu)


@pytest.mark.parametrize(
    ("channels", "filters", "perm", "names"),
    [
        (12, 16, LAST, ["copy", "conv"]),
        (16, 12, LAST, ["conv", "copy"]),
        (16, 16, [0, 3, 2, 1], ["conv", "pointwise"]),
    ],
    ids=["odd channels", "odd filters", "another permutation"],
)
def test_other_channels_that_come_last_are_copied(
    gpu: Target, channels: int, filters: int, perm: list[int], names: list[str]
) -> None:
    nodes = Nodes()
    x = nodes.add("Transpose", halves(1, 6, 5, channels), perm=FIRST)
    x = nodes.add("Conv", x, fixed(halves(filters, channels, 3, 3)))
    nodes.add("Transpose", x, perm=perm)
    assert [name for name, _ in kernels(nodes)] == names
    nodes.check(gpu)


@pytest.mark.parametrize("follower", ["Transpose", "Relu"])
def test_channels_that_two_operators_read_are_not_stored_for_one_of_them(gpu: Target, follower: str) -> None:
    nodes = Nodes()
    x = nodes.add("Conv", halves(1, 16, 6, 5), fixed(halves(16, 16, 3, 3)))
    nodes.add("Transpose", x, perm=LAST)
    nodes.add(follower, x)
    assert len(kernels(nodes)) > 2
    nodes.check(gpu)


def test_groups_without_whole_chunks_go_elsewhere(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("Conv", halves(1, 6, 5, 5), fixed(halves(12, 3, 3, 3)), group=2)
    assert ("conv", True) not in kernels(nodes)
    nodes.check(gpu)


def test_channels_that_are_no_whole_chunks(gpu: Target) -> None:
    """Together with zeros behind them where convolutions follow, else one after the other."""
    nodes = Nodes()
    x = nodes.add(
        "Relu", nodes.add("Conv", halves(2, 8, 5, 6), fixed(halves(11, 8, 3, 3)), fixed(halves(11)))
    )
    x = nodes.add("Conv", x, fixed(halves(11, 1, 3, 3)), pads=[1, 1, 1, 1], group=11)
    x = nodes.add("Add", x, nodes.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    nodes.add("Conv", x, fixed(halves(7, 11, 1, 1)))
    assert [name for name, _ in kernels(nodes)] == ["copy", "conv", "depthwise", "pool", "conv"]
    nodes.check(gpu)


def test_depthwise(gpu: Target) -> None:
    nodes = Nodes()
    weights, bias = fixed(halves(24, 1, 3, 3)), fixed(halves(24))
    nodes.add("Conv", halves(2, 24, 9, 7), weights, bias, group=24, pads=[1, 1, 1, 1])
    nodes.add("Conv", halves(1, 24, 12, 12), weights, group=24, strides=[2, 2], pads=[0, 1, 1, 0])
    nodes.add("Conv", halves(1, 6, 5, 5), fixed(halves(6, 1, 3, 3)), group=6)
    assert [name for name, _ in kernels(nodes)].count("depthwise") == 2
    nodes.check(gpu)


def test_a_chain_of_convolutions_is_moved_at_its_ends_alone(gpu: Target) -> None:
    nodes = Nodes()
    first = nodes.add("Conv", halves(1, 8, 9, 9), fixed(halves(16, 8, 3, 3)), pads=[1, 1, 1, 1])
    pooled = nodes.add(
        "MaxPool", nodes.add("Relu", first), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    second = nodes.add("Conv", pooled, fixed(halves(16, 16, 1, 1)))
    total = nodes.add("Add", second, pooled)
    mean = nodes.add("GlobalAveragePool", total)
    nodes.add("Flatten", mean)
    assert [name for name, _ in kernels(nodes)][:4] == ["copy", "conv", "pool", "conv"]
    nodes.check(gpu)


def attend(
    nodes: Nodes, shape: tuple[int, int, int, int], keys: int, *mask: np.ndarray, **options: float
) -> None:
    batch, heads, _, size = shape
    key = halves(batch, heads, keys, size)
    nodes.add(
        "Attention",
        halves(*shape),
        key,
        halves(batch, heads, keys, size)[::, ::, ::-1].copy(),
        *mask,
        **options,
    )


def test_attention(gpu: Target) -> None:
    nodes = Nodes(opset=23)
    attend(nodes, (1, 2, 70, 64), 130)
    attend(nodes, (2, 1, 17, 16), 64, scale=0.3)
    mask = halves(1, 1, 33, 40)
    mask[..., 30:] = -np.inf
    attend(nodes, (1, 3, 33, 32), 40, mask)
    assert kernels(nodes) == [("attention", True)] * 3
    nodes.check(gpu)


def test_attention_of_other_kinds_goes_elsewhere(gpu: Target) -> None:
    nodes = Nodes(opset=23)
    attend(nodes, (1, 2, 20, 16), 20, softcap=2.0)
    assert "attention" not in [name for name, _ in kernels(nodes)]
    nodes.check(gpu)


def test_tiles_fit_the_chip() -> None:
    for chip in (AMPERE, HOPPER):
        for tile in chip.tiles:
            assert tile.shared <= chip.shared
            assert tile.ahead >= 1
            assert tile.threads % 64 == 0


def test_large_products_get_large_tiles_and_deep_ones_are_cut() -> None:
    large, parts = choose_tensor_tile(HOPPER, Extents(1, 4096, 4096, 4096), 2)
    assert (large.rows, large.columns, parts) == (128, 256, 1)
    small, parts = choose_tensor_tile(HOPPER, Extents(1, 49, 512, 4608), 2)
    assert small.rows == 64
    assert parts > 4


def test_only_hopper_has_groups() -> None:
    assert chip_of(GPU_HOPPER).tiles == GROUPS
    assert chip_of(GPU_HOPPER, along_depth=False).tiles == WARPS
    assert chip_of(CORE) is AMPERE

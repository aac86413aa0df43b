"""Attention on tensor cores next to ONNX Runtime: shapes, masks, and every way to share out the work."""

from itertools import product

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.cuda import attention
from graphopt.backends.cuda.attention_tiles import AttentionTile, choose_attention_tile
from graphopt.backends.cuda.float_attention import choose_rows
from graphopt.backends.cuda.tensor_tiles import AMPERE, HOPPER, Chip
from graphopt.backends.kernels.core import GPU as CORE
from graphopt.backends.kernels.core import GPU_HOPPER, Core
from graphopt.backends.targets import Target
from tests.backends.cuda.test_operators import random
from tests.backends.cuda.test_tensor_cores import attend, halves, kernels
from tests.backends.lower.harness import Nodes

TILES = (
    AttentionTile(4, 1, 64, 2),
    AttentionTile(2, 2, 32, 2),
    AttentionTile(1, 4, 16, 3),
    AttentionTile(3, 1, 112, 2),
    AttentionTile(4, 1, 64, 2, True),
    AttentionTile(8, 1, 128, 2, True),
    AttentionTile(8, 1, 64, 3, True),
    AttentionTile(4, 2, 48, 2, True),
    AttentionTile(4, 1, 208, 1, True),
)
SHAPES = (((1, 2, 70, 64), 197), ((2, 1, 17, 32), 64), ((1, 1, 33, 128), 40), ((1, 2, 20, 48), 207))
"""Of queries, and how many keys."""


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile(gpu: Target, monkeypatch: pytest.MonkeyPatch, tile: AttentionTile) -> None:
    monkeypatch.setattr(attention, "choose_attention_tile", lambda *facts: tile)
    nodes = Nodes(opset=23)
    for shape, keys in SHAPES:
        if keys <= tile.keys * tile.stages or tile.stages > 1:
            attend(nodes, shape, keys)
    mask = halves(2, 1, 33, 40)
    mask[..., 30:] = -np.inf
    attend(nodes, (2, 3, 33, 32), 40, mask, scale=0.3)
    assert {name for name, _ in kernels(nodes)} == {"attention"}
    nodes.check(gpu)


@pytest.mark.parametrize("rows", [1, 4, 5, 8])
def test_floats(gpu: Target, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(attention, "choose_rows", lambda *facts: rows)
    nodes = Nodes(opset=23)
    for (batch, heads, queries, size), keys in SHAPES:
        key = random(batch, heads, keys, size)
        nodes.add(
            "Attention",
            random(batch, heads, queries, size),
            key,
            key[:, :, ::-1, : size // 32 * 16 or 16].copy(),
        )
    mask = random(2, 1, 33, 40)
    mask[..., 30:], mask[0, 0, 3] = -np.inf, -3.2e38
    key = random(2, 3, 40, 32)
    nodes.add("Attention", random(2, 3, 33, 32), key, key[:, :, ::-1].copy(), mask)
    assert [name for name, _ in kernels(nodes)] == ["attention"] * 5
    nodes.check(gpu)


@pytest.mark.parametrize(("size", "options"), [(24, {}), (144, {}), (16, {"softcap": 2.0})])
def test_floats_of_other_kinds_go_elsewhere(gpu: Target, size: int, options: dict[str, float]) -> None:
    nodes = Nodes(opset=23)
    nodes.add("Attention", *[random(1, 2, 20, size)] * 3, **options)
    assert "attention" not in [name for name, _ in kernels(nodes)]
    nodes.check(gpu)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("tile", [AttentionTile(4, 1, 16, 3, True), AttentionTile(1, 2, 16, 2)], ids=str)
def test_heads_that_share_keys_and_queries_that_look_back(
    gpu: Target, monkeypatch: pytest.MonkeyPatch, tile: AttentionTile, dtype: str
) -> None:
    monkeypatch.setattr(attention, "choose_attention_tile", lambda *facts: tile)
    nodes = Nodes(opset=23)
    key = random(1, 2, 70, 16, dtype=dtype)
    value = key[:, :, ::-1].copy()
    nodes.add("Attention", random(1, 6, 20, 16, dtype=dtype), key, value)
    nodes.add("Attention", random(1, 2, 70, 16, dtype=dtype), key, value, is_causal=1)
    mask = random(1, 1, 75, 70, dtype=dtype)
    nodes.add("Attention", random(1, 4, 75, 16, dtype=dtype), key, value, mask, is_causal=1)
    assert {name for name, _ in kernels(nodes)} == {"attention"}
    nodes.check(gpu)


@pytest.mark.parametrize("shapes", [((1, 3, 20, 16), (1, 2, 20, 16)), ((2, 2, 20, 16), (2, 2, 0, 16))])
def test_heads_that_do_not_fit_go_elsewhere(shapes: tuple[tuple[int, ...], ...]) -> None:
    query, key = (
        ir.Value(name="x", shape=ir.Shape(s), type=ir.TensorType(ir.DataType.FLOAT)) for s in shapes
    )
    node = ir.node("Attention", [query, key, key])
    assert not attention.suits_one_kernel(node, [query, key, key], (ir.DataType.FLOAT,), 16)


def test_tiles_follow_the_work() -> None:
    def chosen(core: Core, *shape: int, size: int = 64) -> AttentionTile:
        return choose_attention_tile(core, shape, size, size)

    assert chosen(GPU_HOPPER, 8, 12, 197, 197) == AttentionTile(4, 1, 208, 1, True)
    assert chosen(GPU_HOPPER, 1, 16, 2048, 2048) == AttentionTile(8, 1, 64, 2, True)
    assert chosen(GPU_HOPPER, 1, 12, 128, 128) == AttentionTile(1, 4, 32, 1)
    assert chosen(CORE, 8, 12, 197, 197) == AttentionTile(4, 1, 64, 2)
    assert chosen(CORE, 8, 12, 197, 197, size=128) == AttentionTile(4, 1, 32, 2)


@pytest.mark.parametrize(("core", "chip"), [(CORE, AMPERE), (GPU_HOPPER, HOPPER)])
def test_tiles_fit_the_chip(core: Core, chip: Chip) -> None:
    for size, value_size in product((16, 64, 96, 128), repeat=2):
        for queries, keys in product((1, 100, 3000), (7, 100, 208, 250, 600)):
            tile = choose_attention_tile(core, (1, 4, queries, keys), size, value_size)
            assert tile.shared(size, value_size) <= chip.shared
            assert tile.threads <= 256


def test_rows_of_floats_follow_the_work() -> None:
    few, many, long = (
        choose_rows((*heads, n, n), 64, 64) for heads, n in (((1, 12), 128), ((8, 12), 128), ((8, 12), 197))
    )
    assert few < many < long
    assert choose_rows((8, 12, 197, 197), 128, 128) < long

"""Minimal filtering along rows against ONNX Runtime, and when it is not chosen."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.kernels.core import AVX512
from graphopt.backends.lower import winograd
from graphopt.backends.lower.graph import lower_model
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)

SAME = [1, 1, 1, 1]


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def weights(filters: int, channels: int, side: int = 3) -> np.ndarray:
    return fixed(random(filters, channels, side, side) / (side * side * channels) ** 0.5)


def kernels(nodes: Nodes) -> list[str]:
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    return [kernel.name for kernel in lower_model(model, AVX512).kernels()]


@pytest.mark.parametrize(
    ("image", "filters", "pads"),
    [
        ((1, 8, 32, 32), 8, SAME),
        ((2, 8, 13, 37), 4, SAME),
        ((1, 5, 6, 16), 3, SAME),
        ((1, 16, 30, 21), 7, [0, 0, 0, 0]),
        ((3, 8, 9, 40), 2, [0, 2, 1, 3]),
        ((1, 3, 3, 18), 4, [2, 0, 2, 0]),
        ((1, 4, 7, 150), 4, SAME),
    ],
)
def test_geometries(image: tuple[int, ...], filters: int, pads: list[int]) -> None:
    """Odd images, strips and rows that tiles do not divide, padding of every kind, with what follows fused."""
    nodes = Nodes()
    operands = random(*image), weights(filters, image[1])
    y = nodes.add("Conv", *operands, fixed(random(filters)), pads=pads)
    nodes.add("Relu", nodes.add("Add", y, random(*shape_after(image, filters, pads))))
    nodes.add("Conv", *operands, pads=pads)
    nodes.check()


def shape_after(image: tuple[int, ...], filters: int, pads: list[int]) -> tuple[int, ...]:
    n, _, height, width = image
    return n, filters, height + pads[0] + pads[2] - 2, width + pads[1] + pads[3] - 2


def test_chosen_for_few_channels() -> None:
    nodes = Nodes()
    x = nodes.add("Conv", random(1, 8, 32, 32), weights(4, 8), pads=SAME)
    nodes.add("Conv", x, weights(4, 4), pads=SAME)
    assert kernels(nodes) == ["winograd_rows", "winograd_rows"]


def test_rows_that_lie_apart_are_put_together() -> None:
    nodes = Nodes()
    turned = nodes.add("Transpose", nodes.add("Relu", random(1, 24, 24, 8)), perm=[0, 3, 1, 2])
    nodes.add("Conv", turned, weights(4, 8), pads=SAME)
    assert "winograd_rows" in kernels(nodes)
    nodes.check()


@pytest.mark.parametrize(
    ("image", "side", "options"),
    [
        pytest.param((1, 8, 32, 32), 3, {"strides": [2, 2]}, id="stride"),
        pytest.param((1, 8, 32, 32), 3, {"dilations": [2, 2]}, id="dilation"),
        pytest.param((1, 8, 32, 32), 5, {}, id="window"),
        pytest.param((1, 8, 32, 12), 3, {"pads": SAME}, id="row shorter than a vector"),
        pytest.param((1, 8, 32, 700), 3, {"pads": SAME}, id="rows that no cache holds"),
        pytest.param((1, 1, 32, 32), 3, {"pads": SAME}, id="too few products"),
    ],
)
def test_not_chosen_otherwise(image: tuple[int, ...], side: int, options: dict[str, Any]) -> None:
    nodes = Nodes()
    nodes.add("Conv", random(*image), weights(4, image[1], side), **options)
    assert "winograd_rows" not in kernels(nodes)


def test_not_chosen_for_weights_of_run_time() -> None:
    nodes = Nodes()
    nodes.add("Conv", random(1, 8, 32, 32), random(4, 8, 3, 3), pads=SAME)
    assert "winograd_rows" not in kernels(nodes)


def test_not_chosen_for_weights_that_lose_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LARGEST_ERROR", 0.0)
    nodes = Nodes()
    nodes.add("Conv", random(1, 8, 32, 32), weights(4, 8), pads=SAME)
    assert "winograd_rows" not in kernels(nodes)

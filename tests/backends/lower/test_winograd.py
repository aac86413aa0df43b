"""Winograd convolutions against ONNX Runtime, and when they are not chosen."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.core import AVX512
from graphopt.backends.kernels.window import Window
from graphopt.backends.lower import winograd
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.lower.winograd import is_accurate
from graphopt.backends.schedules import conv
from graphopt.backends.schedules.choice import Rules
from graphopt.backends.schedules.workload import Config
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)


def shape(channels: int, filters: int, side: int, **window: tuple[int, int]) -> ConvShape:
    geometry = {
        "input": (side, side),
        "output": (side, side),
        "kernel": (3, 3),
        "strides": (1, 1),
        "pads": (1, 1),
        "dilations": (1, 1),
    }
    return ConvShape(1, 1, channels, filters, Window(**(geometry | window)))


def weights(filters: int, channels: int) -> np.ndarray:
    return (RNG.standard_normal((filters, channels, 3, 3)) / (9 * channels) ** 0.5).astype(np.float32)


@pytest.mark.parametrize("side", [2, 4])
def test_geometries(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd images and groups of tiles, padding of every kind, channels and filters that do not fill vectors."""
    monkeypatch.setattr(conv, "POINTS", [side])
    monkeypatch.setattr(conv, "_direct", lambda shape, lanes: [])
    conv.candidates.cache_clear()
    nodes = Nodes()
    for image, filters, pads in (
        ((1, 16, 8, 8), 16, [1, 1, 1, 1]),
        ((2, 33, 13, 7), 80, [1, 1, 1, 1]),
        ((1, 48, 10, 11), 20, [0, 0, 0, 0]),
        ((3, 20, 5, 6), 112, [0, 2, 1, 3]),
        ((1, 160, 40, 41), 48, [1, 1, 1, 1]),
    ):
        x = RNG.standard_normal(image).astype(np.float32)
        operands = (x, fixed(weights(filters, image[1])))
        y = nodes.add("Conv", *operands, fixed(RNG.standard_normal(filters).astype(np.float32)), pads=pads)
        nodes.add("Relu", y)
        nodes.add("Conv", *operands, pads=pads)
    nodes.check()
    conv.candidates.cache_clear()


def rule(shape: ConvShape) -> Config:
    return Rules().choose(conv.workload(shape, True), AVX512, lambda config: True)


def test_chosen_for_deep_convolutions_over_large_images() -> None:
    chosen = rule(shape(64, 64, 56))
    assert (chosen["algorithm"], chosen["side"]) == (conv.WINOGRAD, 4)


@pytest.mark.parametrize(
    "unsuited",
    [
        shape(64, 64, 56, strides=(2, 2), output=(28, 28)),
        shape(64, 64, 56, dilations=(2, 2), pads=(2, 2)),
        shape(64, 64, 56, kernel=(1, 1), pads=(0, 0)),
        shape(3, 64, 56),
        shape(512, 512, 2),
    ],
)
def test_not_chosen_for_other_windows_or_where_it_would_be_slower(unsuited: ConvShape) -> None:
    assert rule(unsuited)["algorithm"] == conv.DIRECT


def test_not_used_for_weights_that_lose_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = []
    for limit in (winograd.LARGEST_ERROR, 0.0):
        monkeypatch.setattr(winograd, "LARGEST_ERROR", limit)
        nodes = Nodes()
        image = RNG.standard_normal((1, 64, 40, 40)).astype(np.float32)
        nodes.add("Conv", image, fixed(weights(64, 64)), pads=[1, 1, 1, 1])
        model = ir.from_proto(nodes.proto())
        models.normalise(model)
        kernels.append([kernel.name for kernel in lower_model(model, AVX512).kernels()])
    assert "winograd" in kernels[0]
    assert "winograd" not in kernels[1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_overflow_are_not_accurate() -> None:
    assert not is_accurate(np.full((16, 16, 3, 3), 3e38, np.float32), 4)

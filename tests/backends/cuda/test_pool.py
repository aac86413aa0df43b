"""Pools whose windows are written out, and others."""

from typing import Any

import numpy as np
import pytest

from graphopt.backends.cuda import pixels, pool, runs
from graphopt.backends.targets import Target
from tests.backends.cuda.test_runs import half, text
from tests.backends.lower.harness import Nodes, fixed

LARGER = "graphopt_larger_half("


@pytest.fixture(autouse=True)
def _runs_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are computed as large ones are."""
    monkeypatch.setattr(runs, "LEAST", 1)


def pooled(size: int, channels: int = 16, **attributes: Any) -> Nodes:
    """The pool of what a convolution has left channel by channel."""
    nodes = Nodes()
    images = nodes.add("Conv", half(1, channels, size, size), fixed(half(channels, 1, 1, 1)), group=channels)
    nodes.add("MaxPool", images, **attributes)
    return nodes


WINDOWS = [
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [2, 1]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "dilations": [2, 2]},
    {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2]},
]


@pytest.mark.parametrize(
    ("size", "enough", "block"),
    [*((8, 1, block) for block in ((1, 4), (2, 2), *pool.BLOCKS[:2])), (13, 1, (1, 4)), (8, 1 << 30, (1, 4))],
)
def test_largest_inputs(
    gpu: Target, monkeypatch: pytest.MonkeyPatch, size: int, enough: int, block: pixels.Block
) -> None:
    """By threads of several pixels, and of one where rows are no whole number of blocks, or results are few."""
    monkeypatch.setattr(pixels, "ENOUGH", enough)
    for module, name in ((pool, "BLOCKS"), (pixels, "STRIDED")):
        monkeypatch.setattr(module, name, (block,))
    for window in WINDOWS:
        pooled(size, **window).check(gpu)


def test_neighbours_share_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 x 4 results of windows of 3 x 3 a thread reads 6 x 6 pixels."""
    monkeypatch.setattr(pixels, "ENOUGH", 1)
    made = text(pooled(16, 64, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    made = made[made.rindex("graphopt_pool") :]
    made = made[: made.index("\n}")]
    assert made.count("graphopt_read16((") == 36
    assert made.count(LARGER) == 8 * (6 * 4 * 2 + 16 * 2)


OTHERS = [
    pytest.param({"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2]}, id="taps between"),
    pytest.param({"kernel_shape": [9, 9]}, id="large windows"),
]


@pytest.mark.parametrize("window", OTHERS)
def test_other_windows_are_loops(window: dict[str, Any]) -> None:
    assert LARGER not in text(pooled(16, **window))


def test_integers_are_compared_in_loops(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("MaxPool", (half(1, 16, 9, 9) * 99).astype(np.int8), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert "graphopt_larger" not in text(nodes)
    nodes.check(gpu)

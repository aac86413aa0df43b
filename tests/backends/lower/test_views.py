"""Views of row-major and of channel-blocked tensors against ONNX Runtime."""

import numpy as np
import pytest

from graphopt.backends.codegen.program import Buffer
from graphopt.backends.layout import Blocked, ChannelsLast
from graphopt.backends.lower.views import crop
from graphopt.backends.targets import TARGETS
from graphopt.backends.tensor import stored
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(2)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_pad(mode: str) -> None:
    nodes = Nodes()
    nodes.add("Pad", floats(3, 5), fixed(np.array([1, 2, 0, 3])), mode=mode)
    nodes.add("Pad", floats(2, 3, 17), fixed(np.array([1, 4])), None, fixed(np.array([-1])), mode=mode)
    blocked = nodes.add("Conv", floats(1, 3, 6, 7), fixed(floats(19, 3, 1, 1)))
    nodes.add("Pad", blocked, fixed(np.array([0, 0, 1, 2, 0, 0, 2, 1])), mode=mode)
    nodes.check()


def test_pad_values_and_negative_pads() -> None:
    nodes = Nodes()
    pads = fixed(np.array([0, 3, 0, 1]))
    nodes.add("Pad", floats(3, 5), pads, fixed(np.float32(-2.5)))
    nodes.add("Pad", floats(3, 5), pads, np.full((1,), 7, np.float32))
    nodes.add("Pad", RNG.integers(0, 9, (3, 5)), pads, fixed(np.array(4)))
    nodes.add("Pad", floats(6, 9), fixed(np.array([-1, 2, -2, -3])))
    channels = nodes.add("Conv", floats(1, 3, 8, 8), fixed(floats(16, 3, 1, 1)))
    nodes.add("Pad", channels, fixed(np.array([0, 8, 0, 0, 0, 8, 0, 0])))
    nodes.check()


def test_channel_shuffle() -> None:
    nodes = Nodes()
    blocked = nodes.add("Conv", floats(1, 3, 7, 5), fixed(floats(58, 3, 1, 1)))
    apart = nodes.add("Reshape", blocked, fixed(np.array([1, 2, 29, 7, 5])))
    swapped = nodes.add("Transpose", apart, perm=[0, 2, 1, 3, 4])
    together = nodes.add("Reshape", swapped, fixed(np.array([1, 58, 7, 5])))
    nodes.add("Conv", together, fixed(floats(58, 1, 3, 3)), group=58)
    nodes.check()


def test_slices_of_blocked_tensors() -> None:
    nodes = Nodes()
    blocked = nodes.add("Conv", floats(2, 3, 9, 8), fixed(floats(40, 3, 1, 1)))
    for starts, ends, axes, steps in (
        ([16], [40], [1], [1]),
        ([5], [29], [1], [1]),
        ([1, 0], [8, 8], [2, 3], [2, 3]),
        ([-1], [-10], [2], [-1]),
    ):
        nodes.add("Slice", blocked, *(fixed(np.array(v)) for v in (starts, ends, axes, steps)))
    nodes.check()


@pytest.mark.parametrize("channels", [16, 32, 40, 96])
@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v2"])
def test_blocked_channels_become_the_last_axis(channels: int, target: str) -> None:
    nodes = Nodes()
    blocked = nodes.add("Conv", floats(2, 3, 5, 7), fixed(floats(channels, 3, 1, 1)))
    nodes.add("Neg", nodes.add("Transpose", blocked, perm=[0, 2, 3, 1]))
    flat = nodes.add("Reshape", blocked, fixed(np.array([2, channels, 35])))
    nodes.add("Mul", nodes.add("Transpose", flat, perm=[0, 2, 1]), floats(channels))
    nodes.check(TARGETS[target])


def test_transpose_and_expand() -> None:
    nodes = Nodes()
    nodes.add("Transpose", floats(33, 47), perm=[1, 0])
    nodes.add("Relu", nodes.add("Transpose", floats(2, 17, 5, 16), perm=[0, 2, 1, 3]))
    nodes.add("Transpose", RNG.integers(0, 9, (3, 4, 5)).astype(np.int8))
    nodes.add("Expand", floats(3, 1), fixed(np.array([2, 1, 6])))
    nodes.add("Concat", floats(1, 16, 3), floats(1, 0, 3), floats(1, 5, 3), axis=1)
    nodes.check()


def test_whole_blocks_are_a_view() -> None:
    blocked = stored(Buffer("b", 48 * 4, "float32"), (1, 40, 2, 2), Blocked((1, 40, 2, 2), 16))
    steps = [1, 1, 1, 1]
    assert crop(blocked, [0, 16, 0, 0], steps, (1, 16, 2, 2)).is_blocked
    assert crop(blocked, [0, 16, 0, 0], steps, (1, 24, 2, 2)).is_blocked
    assert crop(blocked, [0, 16, 0, 0], steps, (1, 17, 2, 2)).is_lazy
    assert crop(blocked, [0, 8, 0, 0], steps, (1, 16, 2, 2)).is_lazy
    assert crop(blocked, [0, 16, 1, 0], steps, (1, 16, 1, 2)).is_lazy


def test_any_channels_are_a_view_where_all_lie_together() -> None:
    layout = ChannelsLast.whole((2, 40, 2, 3), 40)
    together = stored(Buffer("b", layout.size(layout.shape), "float32"), layout.shape, layout)
    steps = [1, 1, 1, 1]
    part = crop(together, [0, 7, 0, 0], steps, (2, 9, 2, 3))
    assert part.is_blocked
    assert part.block == 9
    assert part.storage is not None
    assert part.storage.layout.position([1, 3, 1, 2]) == ((1 * 2 + 1) * 3 + 2) * 40 + 7 + 3
    again = crop(part, [0, 2, 0, 0], steps, (2, 4, 2, 3))
    assert again.storage is not None
    assert again.storage.layout == ChannelsLast((2, 4, 2, 3), 40, 9, 4)
    assert crop(together, [0, 7, 0, 0], [1, 2, 1, 1], (2, 9, 2, 3)).is_lazy
    assert crop(together, [0, 7, 1, 0], steps, (2, 9, 1, 3)).is_lazy

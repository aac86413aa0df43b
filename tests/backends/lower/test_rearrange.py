"""Rearranging and generating operators against ONNX Runtime."""

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes, compiled, fixed
from tests.conftest import make_model

RNG = np.random.default_rng(1)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_depth_and_space() -> None:
    nodes = Nodes()
    for mode in ("DCR", "CRD"):
        nodes.add("DepthToSpace", floats(2, 12, 3, 5), blocksize=2, mode=mode)
    nodes.add("SpaceToDepth", floats(2, 3, 4, 6), blocksize=2)
    blocked = nodes.add("Conv", floats(1, 3, 5, 7), fixed(floats(36, 3, 3, 3)))
    nodes.add("Relu", nodes.add("DepthToSpace", blocked, blocksize=3))
    nodes.check()


def test_repeat_and_reverse() -> None:
    nodes = Nodes()
    nodes.add("Tile", floats(2, 1, 3), fixed(np.array([2, 5, 3])))
    nodes.add("Tile", floats(17), fixed(np.array([0])))
    nodes.add("ReverseSequence", floats(5, 3, 2), np.array([5, 1, 3]))
    nodes.add("ReverseSequence", floats(3, 7), np.array([7, 2, 4]), batch_axis=0, time_axis=1)
    nodes.check()


@pytest.mark.parametrize("upper", [0, 1])
def test_triangles(upper: int) -> None:
    nodes = Nodes()
    nodes.add("Trilu", floats(2, 5, 7), upper=upper)
    nodes.add("Trilu", floats(19, 5), fixed(np.array(-2)), upper=upper)
    nodes.add("Trilu", RNG.integers(0, 9, (4, 4)), np.array(1), upper=upper)
    nodes.check()


def test_triangles_drop_infinities() -> None:
    model = make_model("agraph (float[2, 2] x) => (float[2, 2] y) { y = Trilu(x) }")
    x = np.array([[1, np.inf], [np.nan, 2]], np.float32)
    np.testing.assert_array_equal(compiled(model, {"x": x})[0], [[1, np.inf], [0, 2]])


def test_generators() -> None:
    nodes = Nodes()
    nodes.add("EyeLike", floats(3, 5), k=1)
    nodes.add("EyeLike", floats(3, 5), k=-1, dtype=7)
    nodes.add("Shape", floats(3, 5, 1), start=1)
    nodes.check()


def test_split() -> None:
    nodes = Nodes()
    nodes.add("Split", floats(3, 7), num_outputs=3, axis=1, outputs=3)
    nodes.add("Split", floats(3, 8), fixed(np.array([1, 5, 2])), axis=-1, outputs=3)
    blocked = nodes.add("Conv", floats(1, 3, 6, 6), fixed(floats(48, 3, 1, 1)))
    first = nodes.add("Split", blocked, fixed(np.array([16, 32])), axis=1, outputs=2)
    nodes.add("Conv", first, fixed(floats(5, 16, 3, 3)))
    nodes.check()


def test_split_by_attribute() -> None:
    nodes = Nodes(opset=11)
    nodes.add("Split", floats(3, 7), axis=1, split=[3, 4], outputs=2)
    nodes.add("Split", floats(4, 3), outputs=2)
    nodes.check()


def test_col2im() -> None:
    nodes = Nodes()
    nodes.add("Col2Im", floats(1, 8, 12), fixed(np.array([4, 5])), fixed(np.array([2, 2])))
    nodes.add(
        "Col2Im",
        floats(2, 9, 4),
        fixed(np.array([5, 5])),
        fixed(np.array([3, 3])),
        strides=[2, 2],
        pads=[0, 1, 1, 0],
    )
    nodes.check()

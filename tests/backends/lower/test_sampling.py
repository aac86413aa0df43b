"""GridSample and AffineGrid against ONNX Runtime."""

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(padding: str, corners: int) -> None:
    nodes = Nodes(opset=20)
    x = RNG.standard_normal((2, 3, 5, 7)).astype(np.float32)
    grid = RNG.uniform(-2.2, 2.2, (2, 4, 6, 2)).astype(np.float32)
    for mode in ("linear", "nearest", "cubic"):
        nodes.add("GridSample", x, grid, mode=mode, padding_mode=padding, align_corners=corners)
    volume = RNG.standard_normal((1, 2, 3, 4, 5)).astype(np.float32)
    places = RNG.uniform(-1.2, 1.2, (1, 2, 3, 4, 3)).astype(np.float32)
    nodes.add("GridSample", volume, places, padding_mode=padding, align_corners=corners)
    nodes.check()


@pytest.mark.parametrize("corners", [0, 1])
def test_affine_grid(corners: int) -> None:
    nodes = Nodes(opset=20)
    flat, solid = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 2, 3), (1, 3, 4)))
    nodes.add("AffineGrid", flat, fixed(np.array([2, 3, 5, 17])), align_corners=corners)
    nodes.add("AffineGrid", solid, fixed(np.array([1, 3, 2, 3, 4])), align_corners=corners)
    nodes.check()

"""RoiAlign and MaxRoiPool against ONNX Runtime."""

import numpy as np

from tests.backends.lower.harness import Nodes

RNG = np.random.default_rng(8)

IMAGE = RNG.standard_normal((2, 3, 12, 11)).astype(np.float32)
REGIONS = np.array([[0, 0, 10, 9], [2.5, 1, 7.25, 11], [-3, -2, 14, 13], [4, 4, 4, 4]], np.float32)


def test_roi_align() -> None:
    nodes = Nodes(opset=16)
    batch = np.array([0, 1, 1, 0])
    for attributes in (
        {"sampling_ratio": 2},
        {"sampling_ratio": 0, "spatial_scale": 0.5},
        {"sampling_ratio": 2, "coordinate_transformation_mode": "output_half_pixel"},
        {"sampling_ratio": 1, "mode": "max"},
    ):
        nodes.add("RoiAlign", IMAGE, REGIONS, batch, output_height=3, output_width=2, **attributes)
    nodes.check()


def test_max_roi_pool() -> None:
    nodes = Nodes()
    rois = np.concatenate([np.array([[0], [1], [1], [0]], np.float32), np.abs(REGIONS)], 1)
    nodes.add("MaxRoiPool", IMAGE, rois, pooled_shape=[3, 2], spatial_scale=0.8)
    nodes.check()

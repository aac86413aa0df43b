"""Resize and Upsample in every mode against ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

from graphopt.backends.kernels.core import AVX512
from graphopt.backends.lower.graph import lower_model
from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, fixed
from tests.conftest import make_model

RNG = np.random.default_rng(6)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def scales(*values: float) -> Any:
    return fixed(np.array(values, np.float32))


TRANSFORMS = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_coordinates(transform: str) -> None:
    nodes = Nodes()
    shrink = 0.7 if transform != "align_corners" else 5 / 7
    x = floats(1, 2, 7, 9)
    for mode in ("nearest", "linear", "cubic"):
        nodes.add(
            "Resize", x, None, scales(1, 1, shrink, 3), mode=mode, coordinate_transformation_mode=transform
        )
        sizes = fixed(np.array([1, 2, 1, 20]))
        nodes.add("Resize", x, None, None, sizes, mode=mode, coordinate_transformation_mode=transform)
    nodes.check()


def test_ambiguous_corners_are_refused() -> None:
    model = make_model(
        "agraph (float[1,1,1,4] x) => (float[1,1,1,N] y)"
        '{ y = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(x, , s) }',
        s=np.array([1, 1, 1, 0.6], np.float32),
    )
    with pytest.raises(UnsupportedError, match="give sizes instead"):
        lower_model(model, AVX512)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_nearest(rounding: str) -> None:
    nodes = Nodes()
    for factor, transform in (
        (2.0, "half_pixel"),
        (0.5, "half_pixel"),
        (0.4, "asymmetric"),
        (1.25, "asymmetric"),
    ):
        nodes.add(
            "Resize",
            floats(1, 1, 3, 10),
            None,
            scales(1, 1, 1, factor),
            nearest_mode=rounding,
            coordinate_transformation_mode=transform,
        )
    nodes.check()


def test_cropping() -> None:
    nodes = Nodes()
    roi = fixed(np.array([0, 0, 0.2, -0.3, 1, 1, 0.8, 1.2], np.float32))
    for mode in ("nearest", "linear"):
        nodes.add(
            "Resize",
            floats(1, 1, 6, 8),
            roi,
            None,
            fixed(np.array([1, 1, 5, 7])),
            mode=mode,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=4.5,
        )
    nodes.check()


def test_blocked_input_and_followers() -> None:
    nodes = Nodes()
    for mode in ("nearest", "linear", "cubic"):
        blocked = nodes.add("Conv", floats(1, 3, 5, 6), fixed(floats(20, 3, 1, 1)))
        larger = nodes.add("Resize", blocked, None, scales(1, 1, 2, 2), mode=mode)
        nodes.add("Conv", larger, fixed(floats(4, 20, 1, 1)))
    nodes.check()


def test_outside_weights_and_other_types() -> None:
    nodes = Nodes()
    x = floats(1, 1, 5, 6)
    nodes.add("Resize", x, None, scales(1, 1, 1.5, 0.7), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    nodes.add("Resize", RNG.integers(0, 99, (1, 2, 3, 4)).astype(np.uint8), None, scales(1, 1, 2, 2))
    nodes.add(
        "Resize",
        floats(1, 3, 4),
        None,
        None,
        fixed(np.array([9])),
        axes=[2],
        keep_aspect_ratio_policy="not_larger",
    )
    nodes.check()


def test_upsample() -> None:
    for opset, mode in ((9, "nearest"), (9, "linear")):
        nodes = Nodes(opset=opset)
        nodes.add("Upsample", floats(1, 2, 3, 5), scales(1, 1, 2, 3), mode=mode)
        nodes.check()
    nodes = Nodes(opset=10)
    nodes.add("Resize", floats(1, 2, 6, 5), scales(1, 1, 0.5, 2))
    nodes.check()

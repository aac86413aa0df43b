"""Resize next to ONNX Runtime: every way to find where an element comes from."""

from typing import Any

import numpy as np
import pytest

from tests.training.executor.harness import Case, case, check, floats, ints

TRANSFORMS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
MODES: list[dict[str, Any]] = [
    *({"mode": "nearest", "nearest_mode": f"{each}"} for each in ("floor", "ceil")),
    *({"mode": "nearest", "nearest_mode": f"round_prefer_{each}"} for each in ("floor", "ceil")),
    {"mode": "linear"},
    {"mode": "cubic"},
    {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
]


def scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("grows", [True, False])
def test_sizes(transform: str, mode: dict[str, Any], grows: bool) -> None:
    """No element comes from exactly between two others, where the last bit of a float32 would decide."""
    smaller = (3, 5) if transform == "asymmetric" else (4, 4)
    sizes = ints(1, 2, *((9, 14) if grows else smaller))
    image = floats(1, 2, 5, 7)
    check(case("Resize", image, None, None, sizes, coordinate_transformation_mode=transform, **mode))


CASES = [
    case("Resize", floats(1, 2, 5, 7), None, scales(1, 1, 2, 1.5), mode="linear"),
    case("Resize", floats(1, 2, 5, 7), None, scales(2, 0.6), mode="linear", axes=[2, 3]),
    case("Resize", floats(1, 1, 4, 4), None, None, ints(1, 1, 1, 1), mode="linear"),
    case(
        "Resize",
        floats(1, 1, 5, 6),
        np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.2], np.float32),
        None,
        ints(1, 1, 4, 7),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=3.0,
    ),
    case("Resize", floats(1, 2, 5, 7), scales(1, 1, 2, 3), opset=10),
    case("Resize", floats(1, 2, 6, 8), scales(1, 1, 0.5, 2), opset=10),
    case("Resize", floats(1, 2, 5, 7), scales(1, 1, 2, 3), opset=10, mode="linear"),
    case("Upsample", floats(1, 2, 5, 7), scales(1, 1, 2, 3), opset=9),
    case("Upsample", floats(1, 2, 5, 7), opset=7, scales=[1.0, 1.0, 2.0, 2.0], mode="linear"),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_other_cases(each: Case) -> None:
    check(each)

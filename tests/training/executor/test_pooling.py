"""Pools next to ONNX Runtime: windows that overhang, padding that counts and that does not."""

from typing import Any

import pytest

from tests.training.executor.harness import Case, case, check, floats

GEOMETRIES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 8, 9), {"kernel_shape": [2, 3]}),
    ((1, 3, 8, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 3, 8, 9), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [0, 1, 2, 0]}),
    ((1, 3, 8, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 3, 8, 9), {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]}),
    ((1, 3, 8, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 3, 8, 9), {"kernel_shape": [4, 4], "strides": [3, 3], "auto_pad": "SAME_LOWER"}),
    ((1, 3, 8, 9), {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ((1, 3, 17), {"kernel_shape": [4], "strides": [3]}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
]


@pytest.mark.parametrize(("image", "attributes"), GEOMETRIES, ids=str)
def test_max_pool(image: tuple[int, ...], attributes: dict[str, Any]) -> None:
    check(case("MaxPool", floats(*image) - 3, **attributes))


@pytest.mark.parametrize("counted", [0, 1], ids=["elements", "padding too"])
@pytest.mark.parametrize(("image", "attributes"), GEOMETRIES, ids=str)
def test_average_pool(image: tuple[int, ...], attributes: dict[str, Any], counted: int) -> None:
    check(case("AveragePool", floats(*image), count_include_pad=counted, **attributes))


@pytest.mark.parametrize(
    "each",
    [
        case(op, floats(2, 3, *rest))
        for op in ("GlobalAveragePool", "GlobalMaxPool")
        for rest in ((5,), (4, 5))
    ],
    ids=str,
)
def test_global_pools(each: Case) -> None:
    check(each)

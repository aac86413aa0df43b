"""Convolutions next to ONNX Runtime: groups, strides, dilations, uneven padding, transposed ones."""

from typing import Any

import pytest

from tests.training.executor.harness import Case, case, check, floats

GEOMETRIES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 7, 9), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((1, 3, 7, 9), (4, 3, 3, 2), {"pads": [0, 2, 1, 0], "strides": [2, 3]}),
    ((1, 4, 11, 9), (6, 2, 3, 3), {"group": 2, "dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    ((1, 6, 8, 8), (6, 1, 3, 3), {"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 2, 9, 8), (3, 2, 4, 4), {"auto_pad": "SAME_LOWER", "strides": [3, 1]}),
    ((1, 2, 9, 8), (3, 2, 4, 4), {"auto_pad": "VALID", "strides": [2, 1]}),
    ((2, 4, 17), (5, 4, 3), {"pads": [2, 0], "dilations": [2]}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 1), {"pads": [1, 0, 0, 0, 1, 0], "strides": [1, 2, 2]}),
]
TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5, 6), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 3, 5, 6), (3, 4, 3, 2), {"strides": [3, 2], "pads": [0, 1, 2, 0], "output_padding": [2, 1]}),
    ((1, 4, 5, 6), (4, 2, 3, 3), {"group": 2, "dilations": [2, 1], "strides": [2, 2]}),
    ((1, 2, 5, 6), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [10, 13]}),
    ((1, 2, 5, 6), (2, 3, 4, 4), {"strides": [2, 2], "output_shape": [9, 11], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 5, 6), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 5, 6), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 5, 6), (2, 3, 2, 2), {"strides": [2, 2], "auto_pad": "VALID"}),
    ((1, 2, 9), (2, 3, 4), {"strides": [2], "pads": [1, 1]}),
]


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("image", "weight", "attributes"), GEOMETRIES, ids=str)
def test_convolutions(image: Any, weight: Any, attributes: dict[str, Any], biased: bool) -> None:
    check(case("Conv", floats(*image), floats(*weight), floats(weight[0]) if biased else None, **attributes))


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("image", "weight", "attributes"), TRANSPOSED, ids=str)
def test_transposed_convolutions(image: Any, weight: Any, attributes: dict[str, Any], biased: bool) -> None:
    filters = weight[1] * attributes.get("group", 1)
    bias = floats(filters) if biased else None
    check(case("ConvTranspose", floats(*image), floats(*weight), bias, **attributes))


PRODUCTS = [
    case("MatMul", floats(3, 5), floats(5, 4)),
    case("MatMul", floats(2, 1, 3, 5), floats(4, 5, 2)),
    case("MatMul", floats(5), floats(2, 5, 3)),
    case("MatMul", floats(4, 5), floats(5)),
    case("Gemm", floats(3, 5), floats(5, 4)),
    case("Gemm", floats(3, 5), floats(5, 4), floats(4)),
    case("Gemm", floats(5, 3), floats(4, 5), floats(3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", floats(3, 5), floats(5, 4), floats(1), beta=0.25),
    case("Einsum", floats(2, 3, 4), floats(2, 5, 4), equation="bij,bkj->bik"),
    case("Einsum", floats(3, 3), equation="ii->i"),
]


@pytest.mark.parametrize("each", PRODUCTS, ids=str)
def test_products(each: Case) -> None:
    check(each)

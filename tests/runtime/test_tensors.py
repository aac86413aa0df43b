"""Descriptions of tensors."""

from typing import Any

import numpy as np
import pytest

from graphopt_runtime.errors import ArtifactError
from graphopt_runtime.tensors import NodeArg, Tensor, allocate, node_args, parse_variants


def tensor(*shape: int, dtype: str = "float32") -> Tensor:
    return Tensor("t", shape, np.dtype(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (7, 5, 3)])
@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "int64", "float64"])
def test_arrays_are_allocated_on_64_bytes(shape: tuple[int, ...], dtype: str) -> None:
    array, start = allocate(tensor(*shape, dtype=dtype))
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert start % 64 == 0
    if array.size:
        assert array.ctypes.data == start
    array[...] = 1
    assert array.flags.c_contiguous


def test_node_args_join_what_differs_between_variants() -> None:
    joined = node_args([(tensor(1, 64),), (tensor(1, 128),), (tensor(1, 64),)])
    assert joined == [NodeArg("t", [1, "64|128"], "tensor(float)")]
    assert node_args([(tensor(2),), (tensor(2, 2),)]) == [NodeArg("t", ["[2]|[2, 2]"], "tensor(float)")]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float32", "float"),
        ("float64", "double"),
        ("float16", "float16"),
        ("bool", "bool"),
        ("uint8", "uint8"),
    ],
)
def test_types_are_spelled_like_onnx(dtype: str, name: str) -> None:
    assert node_args([(tensor(1, dtype=dtype),)])[0].type == f"tensor({name})"


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([], "no variants"),
        (
            [
                {"inputs": [], "outputs": []},
                {"inputs": [{"name": "x", "shape": [], "dtype": "bool"}], "outputs": []},
            ],
            "differ in more than shapes",
        ),
        ([{"inputs": []}], "cannot read: 'outputs'"),
        (
            [{"inputs": [{"name": "x", "shape": ["<=8"], "dtype": "float32"}], "outputs": []}],
            "not fixed sizes",
        ),
        ([{"inputs": [{"name": "x", "shape": [-1], "dtype": "float32"}], "outputs": []}], "not fixed sizes"),
        ([{"inputs": [{"name": "x", "shape": [1], "dtype": "float7"}], "outputs": []}], "float7"),
    ],
)
def test_unreadable_variants_are_refused(variants: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_variants({"variants": variants})

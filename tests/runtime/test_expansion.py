"""Weights that are computed from fewer numbers."""

from typing import Any

import numpy as np
import pytest

from graphopt_runtime.expansion import Expansion, expand, parse_expansion

RNG = np.random.default_rng(0)


def test_blocks_are_multiplied_from_both_sides() -> None:
    expansion = Expansion(4, 3, [(2, 5), (1, 3)])
    numbers = RNG.standard_normal(expansion.before).astype(np.float32)
    matrix = RNG.standard_normal((4, 3))
    matrix[1] = [0, 1, 0]
    found = expand(numbers, matrix, expansion)
    assert found.dtype == np.float32
    assert found.size == expansion.after == 4 * 4 * (2 * 5 + 3)
    parts = [
        np.einsum("ij,bjkn,lk->biln", matrix, part.astype(np.float64), matrix).reshape(-1)
        for part in (numbers[:90].reshape(2, 3, 3, 5), numbers[90:].reshape(1, 3, 3, 3))
    ]
    np.testing.assert_allclose(found, np.concatenate(parts), rtol=1e-6, atol=1e-6)


def test_a_description_comes_back() -> None:
    expansion = Expansion(6, 3, [(2, 64), (1, 32)])
    assert parse_expansion(expansion.to_json()) == expansion


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, "is no expansion"),
        ([4, 3], "is no expansion"),
        ([4, 3, 7], "is no expansion"),
        ([4, 3, [[1, 2, 3]]], "is no expansion"),
        ([4, 3, [[1, 0]]], "makes no sense"),
        ([4.0, 3, [[1, 2]]], "makes no sense"),
        ([40, 3, [[1, 2]]], "makes no sense"),
    ],
)
def test_descriptions_that_make_no_sense(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_expansion(content)

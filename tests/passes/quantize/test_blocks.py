"""Weights of four bits: what they stand for, and that learning from data pays."""

import numpy as np
import pytest

from graphopt.passes.quantize import blocks

RNG = np.random.default_rng(8)
MATRIX = RNG.standard_normal((50, 12)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 16, 32, 50])
def test_rounding_is_off_by_less_than_a_step(size: int) -> None:
    found = blocks.nearest(MATRIX, size)
    assert found.scales.shape == found.zeros.shape == (-(-50 // size), 12)
    assert found.levels.max() <= blocks.HIGHEST
    steps = np.repeat(found.scales, size, axis=0)[:50]
    inside = (found.levels > 0) & (found.levels < blocks.HIGHEST)
    off = np.abs(blocks.values(found, size) - MATRIX) / steps
    assert (off[inside] <= 0.5 + 1e-4).all()
    assert np.square(blocks.values(found, size) - MATRIX).mean() < 0.02


def test_smaller_blocks_are_nearer() -> None:
    errors = [np.square(blocks.values(blocks.nearest(MATRIX, n), n) - MATRIX).mean() for n in (8, 16, 50)]
    assert errors == sorted(errors)


def test_levels_on_a_grid_are_exact() -> None:
    matrix = (RNG.integers(0, 16, (32, 4)) - 5).astype(np.float32) * 0.25
    matrix[:2] = [[-1.25], [2.5]]
    np.testing.assert_allclose(blocks.values(blocks.nearest(matrix, 32), 32), matrix, atol=1e-6)


def test_columns_of_zeros() -> None:
    found = blocks.nearest(np.zeros((8, 2), np.float32), 4)
    assert (found.scales == 1).all()
    assert not blocks.values(found, 4).any()


def test_making_up_for_errors_lowers_those_of_the_product() -> None:
    x = RNG.standard_normal((400, 50)) @ RNG.standard_normal((50, 50))
    plain, learned = blocks.nearest(MATRIX, 16), blocks.reconstructed(MATRIX, x.T @ x, 16)
    errors = [np.square(x @ (blocks.values(each, 16) - MATRIX)).mean() for each in (plain, learned)]
    assert errors[1] < 0.8 * errors[0]


def test_channels_that_are_never_seen_do_no_harm() -> None:
    products = np.zeros((50, 50))
    found = blocks.reconstructed(MATRIX, products, 16)
    np.testing.assert_array_equal(found.levels, blocks.nearest(MATRIX, 16).levels)

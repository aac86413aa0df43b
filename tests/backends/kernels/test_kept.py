"""Vectors that are not zero: what is stored is found again, and sections are the weights that they stand for."""

from functools import partial

import numpy as np
import pytest

from graphopt.backends.kernels import kept
from graphopt.backends.kernels.core import AVX512, NEON

RNG = np.random.default_rng(3)


def test_what_is_not_stored_is_zero() -> None:
    sections = RNG.standard_normal((5, 9, 4)).astype(np.float32)
    sections[RNG.random((5, 9)) < 0.6] = 0
    sections[3] = 0
    packed = kept.pack_kept(sections)
    assert packed.starts[-1] == len(packed.values) == len(packed.rows)
    restored = np.zeros_like(sections)
    for section in range(5):
        own = slice(*packed.starts[section : section + 2])
        assert (np.diff(packed.rows[own]) > 0).all()
        restored[section, packed.rows[own]] = packed.values[own]
    np.testing.assert_array_equal(restored, sections)


def test_sections_of_a_matrix_are_vectors_of_columns() -> None:
    matrix = RNG.standard_normal((6, 10))
    sections = kept.panel_sections(matrix, 4)
    assert sections.shape == (3, 6, 4)
    np.testing.assert_array_equal(np.moveaxis(sections, 0, 1).reshape(6, 12)[:, :10], matrix)
    assert not sections[2, :, 2:].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_sections_of_filters_are_vectors_of_them_at_each_place(groups: int) -> None:
    weights = RNG.standard_normal((6 * groups, 5, 3, 2))
    sections = kept.filter_sections(weights, groups, 4).reshape(groups, 2, 3, 2, 5, 4)
    for group, filter_, channel, y, x in np.ndindex(groups, 6, 5, 3, 2):
        found = sections[group, filter_ // 4, y, x, channel, filter_ % 4]
        assert found == weights[group * 6 + filter_, channel, y, x]
    assert not sections[:, 1, ..., 2:].any()


def test_shares() -> None:
    matrix = np.ones((10, 8), np.float32)
    sections = partial(kept.panel_sections, lanes=4)
    assert kept.share_kept(matrix, sections) == 1
    matrix[:, 1::2] = 0
    assert kept.share_kept(matrix, sections) == 1
    matrix[:5, :4] = 0
    assert kept.share_kept(matrix, sections) == 0.75
    assert kept.share_kept(np.zeros((0, 8), np.float32), sections) == 1


@pytest.mark.parametrize("core", [AVX512, NEON])
def test_a_step_costs_more_with_more_scalars_and_less_by_each(core: kept.Core) -> None:
    costs = [kept.sparse_step_cycles(scalars, 1000, core) for scalars in (1, 8, 16, 24)]
    assert costs == sorted(costs)
    shares = [cost / scalars for cost, scalars in zip(costs, (1, 8, 16, 24), strict=True)]
    assert shares == sorted(shares, reverse=True)

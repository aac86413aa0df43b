"""Codes of whole tensors: by groups of channels, and with errors that make up for one another."""

import numpy as np
import pytest

from graphopt.passes.cluster.codebook import Size
from graphopt.passes.cluster.coded import RECONSTRUCT, SENSITIVITY, encode
from graphopt.passes.cluster.matrices import Geometry, Moments

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((48, 64)).astype(np.float32)


def observed(rows: np.ndarray) -> Moments:
    moments = Moments(Geometry())
    moments.add(rows.astype(np.float32))
    return moments


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("group", "books"), [(None, 1), (16, None), (5, None), (1, None), (1000, 1)])
def test_groups_of_channels(axis: int, group: int | None, books: int | None) -> None:
    coded = encode(WEIGHTS, axis, Size(4), group)
    if books is not None:
        assert len(coded.values) == books
    else:
        assert WEIGHTS.shape[axis] % len(coded.values) == 0
        assert WEIGHTS.shape[axis] // len(coded.values) <= (group or 0)
    assert coded.weights.shape == WEIGHTS.shape
    assert coded.weights.dtype == np.float32
    size = WEIGHTS.shape[axis] // len(coded.values)
    for number, values in enumerate(coded.values):
        part = np.take(coded.weights, range(number * size, (number + 1) * size), axis)
        assert set(part.reshape(-1)) == set(values)


def test_more_codebooks_less_error() -> None:
    scaled = WEIGHTS * np.arange(1, 49, dtype=np.float32)[:, None]
    errors = [np.square(encode(scaled, 0, Size(8), group).weights - scaled).sum() for group in (None, 4)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("group", [None, 8])
def test_rows_make_up_for_one_another(axis: int, group: int | None) -> None:
    """Of what is correlated, sums get nearer, and single weights do not."""
    width = WEIGHTS.shape[1 - axis]
    rows = RNG.standard_normal((500, 8)) @ RNG.standard_normal((8, width)) + 0.1 * RNG.standard_normal(
        (500, width)
    )
    errors = []
    for techniques in ((), (RECONSTRUCT,)):
        change = encode(WEIGHTS, axis, Size(8), group, observed(rows), techniques).weights - WEIGHTS
        errors.append(np.square(rows @ (change if axis == 1 else change.T)).sum())
    assert errors[1] < 0.2 * errors[0]


def test_weights_that_meet_more_are_nearer() -> None:
    rows = RNG.standard_normal((500, 64)) * np.where(np.arange(64) < 8, 10, 0.1)
    shifted = WEIGHTS + np.where(np.arange(64) < 8, 5, 0).astype(np.float32)
    errors = []
    for techniques in ((), (SENSITIVITY,)):
        change = encode(shifted, 0, Size(8), None, observed(rows), techniques).weights - shifted
        errors.append(np.square(rows @ change.T).sum())
    assert errors[1] < 0.7 * errors[0]


def test_inputs_that_are_always_zero() -> None:
    coded = encode(WEIGHTS, 0, Size(8), None, observed(np.zeros((10, 64))), (RECONSTRUCT, SENSITIVITY))
    assert np.isfinite(coded.weights).all()


def test_groups_of_a_convolution() -> None:
    filters = RNG.standard_normal((12, 3, 3, 3)).astype(np.float32)
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), "NOTSET", 4)
    moments = Moments(geometry)
    moments.add(RNG.standard_normal((4, 12, 8, 8)).astype(np.float32).cumsum(axis=-1))
    plain, near = (encode(filters, 0, Size(8), None, moments, each) for each in ((), (RECONSTRUCT,)))
    assert plain.codes.shape == near.codes.shape == filters.shape
    assert (plain.codes != near.codes).any()

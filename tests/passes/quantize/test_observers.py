"""What is kept of what was seen, and that it does not matter who saw which part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphopt.passes.quantize.observers import HALF, Channels, Gram, Seen

RNG = np.random.default_rng(6)
BATCHES = st.lists(
    arrays(np.float32, st.integers(0, 20), elements=st.floats(-1e6, 1e6, width=32)), max_size=6
)


def seen(*batches: np.ndarray) -> Seen:
    found = Seen()
    for batch in batches:
        found.add(batch)
    return found


@given(BATCHES)
def test_nothing_is_lost_when_the_histogram_widens(batches: list[np.ndarray]) -> None:
    found = seen(*batches)
    together = np.concatenate([np.zeros(0, np.float32), *batches])
    assert found.counts.sum() == together.size
    if together.size:
        assert (found.low, found.high) == (together.min(), together.max())
        assert found.radius >= np.abs(together).max()
        small = (np.abs(together) < found.radius / HALF).sum()
        assert found.counts[HALF:].sum() >= (together > 0).sum() - small


@given(BATCHES, st.integers(0, 6))
def test_two_that_saw_half_each_are_one_that_saw_all(batches: list[np.ndarray], cut: int) -> None:
    together, first, second = seen(*batches), seen(*batches[:cut]), seen(*batches[cut:])
    first.join(second)
    assert (first.low, first.high, first.radius) == (together.low, together.high, together.radius)
    assert np.array_equal(first.counts, together.counts)
    if together.average is not None:
        assert first.average == pytest.approx(together.average, rel=1e-6, abs=1e-3)


def test_values_next_to_nothing_have_a_histogram() -> None:
    found = seen(np.full(3, 1e-38, np.float32))
    assert np.isfinite(found.centres).all()
    assert found.counts.sum() == 3


@pytest.mark.parametrize("axis", [1, -1])
def test_channels(axis: int) -> None:
    x = RNG.standard_normal((6, 5, 3, 4)).astype(np.float32)
    found = Channels(axis)
    for batch in (x[:4], x[4:], x[:0]):
        found.add(batch)
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    np.testing.assert_array_equal(found.low, rows.min(axis=0))
    np.testing.assert_array_equal(found.high, rows.max(axis=0))
    np.testing.assert_allclose(found.means, rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.mean_squares, np.square(rows).mean(axis=0), rtol=1e-5)
    halved = found.divided(np.full(x.shape[axis], 2.0))
    np.testing.assert_allclose(halved.means, found.means / 2)
    assert halved.range == (found.range[0] / 2, found.range[1] / 2)


def test_products_of_channels() -> None:
    x = RNG.standard_normal((4, 7, 3)).astype(np.float32)
    found = Gram()
    found.add(x[:1])
    found.add(x[1:])
    rows = x.reshape(-1, 3)
    np.testing.assert_allclose(found.products, rows.T @ rows, rtol=1e-4)

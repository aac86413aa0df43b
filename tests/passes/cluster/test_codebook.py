"""Codebooks: what stands for what, and how error is traded for entropy."""

import numpy as np
import pytest

from graphopt.passes.cluster.codebook import Size, entropy, make_codebook

WEIGHTS = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)


def sqnr(weights: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(weights).sum() / np.square(weights - found).sum()))


def test_every_weight_gets_the_nearest_value() -> None:
    book = make_codebook(WEIGHTS, Size(8))
    codes = book.codes(WEIGHTS)
    assert codes.dtype == np.uint8
    distances = np.abs(WEIGHTS[..., None] - book.values)
    chosen = np.take_along_axis(distances, codes[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(chosen, distances.min(axis=-1), atol=1e-6)


def test_the_quality_asked_for() -> None:
    book = make_codebook(WEIGHTS, Size(sqnr_db=20.0))
    assert sqnr(WEIGHTS, book.values[book.codes(WEIGHTS)]) > 19.99
    fewer = make_codebook(WEIGHTS, Size(len(book.values) - 1))
    assert sqnr(WEIGHTS, fewer.values[fewer.codes(WEIGHTS)]) < 20


def test_important_weights_are_nearer() -> None:
    importance = np.where(WEIGHTS > 0, np.float32(100), np.float32(1))
    plain, weighted = make_codebook(WEIGHTS, Size(8)), make_codebook(WEIGHTS, Size(8), importance)
    assert (weighted.values > 0).sum() > (plain.values > 0).sum()


@pytest.mark.parametrize("clusters", [8, 32])
def test_entropy_is_bought_with_error(clusters: int) -> None:
    """The more may be lost, the fewer bits a code takes, and the larger the error."""
    weights = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    found = []
    for slope in (0.0, 0.5, 1.0, 2.0):
        book = make_codebook(weights, Size(clusters, entropy=slope))
        codes = book.codes(weights)
        assert codes.max() < len(book.values)
        assert (np.diff(book.values) > 0).all()
        found.append((entropy(codes), sqnr(weights, book.values[codes])))
    bits, quality = zip(*found, strict=True)
    assert list(bits) == sorted(bits, reverse=True)
    assert list(quality) == sorted(quality, reverse=True)
    assert bits[0] - bits[-1] > 0.05


def test_whole_numbers() -> None:
    levels = np.rint(20 * WEIGHTS)
    for slope in (0.0, 1.0):
        book = make_codebook(levels, Size(16, entropy=slope, whole=True))
        assert 2 < len(book.values) <= 16
        np.testing.assert_array_equal(book.values, np.rint(book.values))
        assert sqnr(levels, book.values[book.codes(levels)]) > 15


def test_equal_weights() -> None:
    for slope in (0.0, 1.0):
        book = make_codebook(np.full((3, 4), 2.5, np.float32), Size(entropy=slope))
        np.testing.assert_array_equal(book.values, [2.5])
        assert entropy(book.codes(np.full((3, 4), 2.5, np.float32))) == 0


def test_entropy_of_codes() -> None:
    assert entropy(np.uint8([0, 1, 2, 3])) == 2
    assert entropy(np.uint8([7, 7])) == 0

"""Weights in coded form: what is worth it, and that it comes back bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from graphopt.artifacts import coding
from graphopt.artifacts.coding import Origin, Segment, encode
from graphopt_runtime.coding import decode
from graphopt_runtime.expansion import Expansion

RNG = np.random.default_rng(0)
SIZE = 20_000


def few(values: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(values).astype(dtype)[RNG.integers(0, values, SIZE)]


def blob(*arrays: np.ndarray) -> tuple[bytes, list[Segment]]:
    """Arrays at multiples of 64 bytes."""
    content, segments = bytearray(), []
    for array in arrays:
        segments.append(Segment(len(content), array.nbytes, array.itemsize))
        content += array.tobytes() + bytes(-array.nbytes % 64)
    return bytes(content), segments


def sparse() -> np.ndarray:
    return np.where(RNG.random(10 * SIZE) < 0.1, RNG.standard_normal(10 * SIZE), 0).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "share"),
    [
        (few(2), 0.05),
        (few(32), 0.18),
        (few(300), 0.40),
        (few(32, np.float64), 0.10),
        (few(16, np.float16), 0.28),
        (RNG.integers(0, 20, SIZE).astype(np.int8), 0.60),
        (np.zeros(SIZE, np.float32), 0.01),
        (sparse(), 0.25),
    ],
    ids=["binary", "32 values", "300 values", "doubles", "halves", "bytes", "zeros", "sparse"],
)
def test_what_repeats_is_coded(array: np.ndarray, share: float) -> None:
    weights, segments = blob(array)
    coded = encode(weights, segments)
    assert coded is not None
    assert len(coded.stored) < share * len(weights)
    assert bytes(decode(memoryview(coded.stored), coded.coding, "m")) == weights
    assert encode(weights, segments) == coded


def test_parts_that_do_not_repeat_stay_as_they_are() -> None:
    weights, segments = blob(
        few(32), RNG.standard_normal(777).astype(np.float32), few(4), np.zeros(0, np.float32)
    )
    coded = encode(weights, segments)
    assert coded is not None
    values = [part.values for part in coded.coding.parts]
    assert values == [32, None, 4, None]
    assert bytes(decode(memoryview(coded.stored), coded.coding, "m")) == weights


def test_what_is_computed_from_few_values() -> None:
    """The numbers are stored instead, and give the same bits; of numbers that do not repeat, the result is."""
    expansion = Expansion(4, 2, [(5, 1000)])
    for numbers, kept in ((few(9), True), (RNG.standard_normal(SIZE).astype(np.float32), False)):
        origin = Origin(numbers, RNG.standard_normal((4, 2)), expansion)
        weights, [segment] = blob(origin.expanded)
        coded = encode(weights, [replace(segment, origin=origin)])
        assert (coded is not None) == kept
        if coded is not None:
            assert len(coded.stored) < 0.05 * len(weights)
            assert bytes(decode(memoryview(coded.stored), coded.coding, "m")) == weights


def test_too_little_is_not_worth_it() -> None:
    """Where most weights stay as they are, they had better be mapped from the file."""
    weights, segments = blob(few(32), RNG.standard_normal(5 * SIZE).astype(np.float32))
    assert encode(weights, segments) is None
    assert encode(*blob(RNG.standard_normal(SIZE).astype(np.float32))) is None
    assert encode(b"", []) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weights_that_do_not_repeat_are_known_by_samples(
    monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    """Without coding all of them; filters half of which are zeros are coded, as samples tell."""
    rows = RNG.standard_normal((400, 576)).astype(dtype)
    pruned = rows * (RNG.random((400, 1)) < 0.5).astype(dtype)
    weights, segments = blob(pruned)
    assert encode(weights, segments) is not None
    monkeypatch.delattr(coding, "_packed")
    weights, segments = blob(rows)
    assert encode(weights, segments) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_distinct_elements_are_those_of_numpy(dtype: type) -> None:
    elements = RNG.integers(0, np.iinfo(dtype).max, 1000, dtype=dtype, endpoint=True) // 3 * 3
    for found, expected in zip(
        coding._distinct(elements), np.unique(elements, return_inverse=True), strict=True
    ):
        assert np.array_equal(found, expected)
        assert found.dtype == expected.dtype

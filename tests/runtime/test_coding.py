"""Weights in coded form: what is decoded, and damage that is found."""

import zlib
from typing import Any

import numpy as np
import pytest

from graphopt_runtime.coding import Coding, Part, decode, parse_coding
from graphopt_runtime.errors import ArtifactError
from graphopt_runtime.expansion import Expansion


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


BOOK = np.float32([0.5, -1.0, 2.0])
CODES = np.uint8([2, 0, 1, 1])
CODED = BOOK.tobytes() + deflated(CODES.tobytes())
WIDE = np.arange(300, dtype=np.int16)
WIDE_CODED = WIDE.tobytes() + deflated(bytes(range(256)) + bytes(range(44)) + bytes(256) + b"\1" * 44)
PLAIN = deflated(b"ab" + b"\0\1")


def decoded(stored: bytes, size: int, *parts: Part) -> bytes:
    return bytes(decode(memoryview(stored), Coding(size, parts), "m.gopt"))


def test_codes_of_a_codebook() -> None:
    found = decoded(CODED, 16, Part(0, 16, len(CODED), 4, 3))
    assert found == BOOK[CODES].tobytes()


def test_codes_of_two_bytes() -> None:
    assert decoded(WIDE_CODED, 600, Part(0, 600, len(WIDE_CODED), 2, 300)) == WIDE.tobytes()


def test_elements_that_are_their_own_codes() -> None:
    assert decoded(PLAIN, 4, Part(0, 4, len(PLAIN), 2, 0)) == b"a\0b\1"


def test_parts_with_gaps_between_them() -> None:
    parts = [Part(0, 3, 3, 1, None), Part(64, 16, len(CODED), 4, 3)]
    found = decoded(b"xyz" + CODED, 96, *parts)
    assert found == b"xyz" + bytes(61) + BOOK[CODES].tobytes() + bytes(16)


def test_nothing_at_all() -> None:
    assert decoded(b"", 0) == b""
    assert decoded(deflated(b""), 0, Part(0, 0, len(deflated(b"")), 4, 0)) == b""


def test_decoded_weights_start_at_a_page() -> None:
    found = decode(memoryview(CODED), Coding(16, [Part(0, 16, len(CODED), 4, 3)]), "m")
    assert np.frombuffer(found, np.uint8).ctypes.data % 4096 == 0


@pytest.mark.parametrize(
    ("stored", "part", "message"),
    [
        (CODED[:-1], Part(0, 16, len(CODED) - 1, 4, 3), "does not end"),
        (CODED + b"x", Part(0, 16, len(CODED) + 1, 4, 3), "does not end"),
        (CODED, Part(0, 12, len(CODED), 4, 3), "does not end"),
        (CODED, Part(0, 20, len(CODED), 4, 3), "does not end"),
        (b"\0" * 12 + b"\xff" * 9, Part(0, 16, 21, 4, 3), "invalid"),
        (BOOK[:2].tobytes() + deflated(CODES.tobytes()), Part(0, 16, len(CODED) - 4, 4, 2), "code 2 of 2"),
        (b"abc", Part(0, 16, 3, 4, 3), "buffer"),
        (b"abc", Part(0, 64, 3, 4, 3, Expansion(2, 1, [(2, 2)])), "buffer"),
    ],
)
def test_damage_is_found(stored: bytes, part: Part, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"m.gopt: the weights at 0 cannot be decoded: .*{message}"):
        decoded(stored, part.offset + part.size, part)


def test_a_stream_of_far_too_much_is_not_read() -> None:
    """A few kilobytes that would inflate to a gigabyte: no more than asked for is made of them."""
    stream = deflated(bytes(1 << 24))
    with pytest.raises(ArtifactError, match="does not end after 16 bytes"):
        decoded(stream, 16, Part(0, 16, len(stream), 4, 0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it has no bytes, or no parts"),
        ({}, "it has no bytes, or no parts"),
        ({"bytes": 16, "parts": 3}, "it has no bytes, or no parts"),
        ({"bytes": 16, "parts": [[0, 16, 8, 4]]}, "it has no bytes, or no parts"),
        ({"bytes": 16, "parts": [[0, -16, 8, 4, 3]]}, "not all sizes"),
        ({"bytes": 16, "parts": [[0, "16", 8, 4, 3]]}, "not all sizes"),
        ({"bytes": 16, "parts": [[0, 16, 8, 3, 3]]}, "no elements of 3 bytes"),
        ({"bytes": 16, "parts": [[2, 8, 8, 4, 3]]}, "no elements of 4 bytes"),
        ({"bytes": 16, "parts": [[0, 16, 8, 4, 70000]]}, "a codebook of 70000"),
        ({"bytes": 16, "parts": [[0, 16, 8, 4, None]]}, "8 bytes are stored of 16"),
        ({"bytes": 16, "parts": [[0, 12, 4, 4, 3], [8, 4, 4, 4, 3]]}, "overlaps"),
        ({"bytes": 12, "parts": [[0, 16, 8, 4, 3]]}, "parts reach to 16 of 12"),
        ({"bytes": "16", "parts": [[0, 16, 8, 4, 3]]}, "parts reach"),
        ({"bytes": 16, "parts": [[0, 16, 7, 4, 3]]}, "parts have 7 bytes, 8 are stored"),
        ({"bytes": 16, "parts": [[0, 16, 8, 4, 3, [3, 3, [[1, 1]]]]]}, "an expansion to 9 numbers"),
        ({"bytes": 36, "parts": [[0, 36, 36, 4, None, [3, 3, [[1, 1]]]]]}, "an expansion to 9 numbers"),
        ({"bytes": 36, "parts": [[0, 36, 8, 4, 3, [3, 3]]]}, "is no expansion"),
        ({"bytes": 36, "parts": [[0, 36, 8, 4, 3, None, 1]]}, "it has no bytes, or no parts"),
    ],
)
def test_descriptions_that_make_no_sense(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_coding(content, 8)


def test_a_description_comes_back() -> None:
    parts = [
        Part(0, 3, 3, 1, None),
        Part(64, 16, 20, 4, 3),
        Part(128, 16, 9, 4, 0, Expansion(2, 1, [(1, 1)])),
    ]
    coding = Coding(144, parts)
    assert parse_coding(coding.to_json(), 32) == coding


def test_codes_of_numbers_that_others_are_computed_from() -> None:
    stored = np.float64([3, 0.5]).tobytes() + CODED
    part = Part(0, 64, len(stored), 4, 3, Expansion(2, 1, [(2, 2)]))
    numbers = BOOK[CODES].reshape(2, 1, 2)
    expected = numbers * np.float32([[9], [1.5], [1.5], [0.25]])
    assert decoded(stored, 64, part) == expected.tobytes()

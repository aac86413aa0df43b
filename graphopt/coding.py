"""Weights as artifacts store them: what has few different elements as a codebook and deflated codes, the rest as it is.

`graphopt_runtime.coding` decodes them as they are loaded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt_runtime.coding import MOST_VALUES, Coding, Part, code_type

WORTHWHILE = 0.95
"""Of the bytes of a constant, at most what its code may take."""

WORTHWHILE_AT_ALL = 0.75
"""Of all bytes, at most what codes may take: weights that are coded can not be mapped from the file."""

SAMPLE = 1 << 14
"""Elements from which it is guessed whether a constant has few different ones."""

MOST_DIFFERENT = 0.75
"""Of a sample, the share of different elements from which on there is nothing to gain."""


@dataclass(frozen=True)
class Segment:
    """Where a constant lies among the weights, and the bytes of one of its elements."""

    offset: int
    size: int
    item: int


@dataclass(frozen=True)
class Coded:
    """What is stored, and how to read it."""

    stored: bytes
    coding: Coding


def encode(weights: bytes, segments: Sequence[Segment]) -> Coded | None:
    """The weights in coded form; None where that would not be much smaller. All but the `segments` are zeros.

    The same weights give the same bytes.
    """
    if not segments:
        return None
    whole, parts, pieces = memoryview(weights), list[Part](), list[bytes | memoryview]()
    for segment, packed in _packed(whole, segments):
        span = whole[segment.offset : segment.offset + segment.size]
        piece, values = (span, None) if packed is None else packed
        pieces.append(piece)
        parts.append(Part(segment.offset, segment.size, len(piece), segment.item, values))
    if sum(map(len, pieces)) >= WORTHWHILE_AT_ALL * len(weights):
        return None
    return Coded(b"".join(pieces), Coding(len(weights), parts))


_Packed = tuple[bytes, int]
"""Stored bytes, and how many values their codebook has."""


def _packed(whole: memoryview, segments: Iterable[Segment]) -> Iterator[tuple[Segment, _Packed | None]]:
    for segment in sorted(segments, key=lambda each: each.offset):
        elements = np.frombuffer(whole, f"u{segment.item}", segment.size // segment.item, segment.offset)
        yield segment, _shortest(elements)


def _shortest(elements: np.ndarray) -> _Packed | None:
    """The code of some elements; None where it is not worth it."""
    if not elements.size or not _promises(elements):
        return None
    values, codes = np.unique(elements, return_inverse=True)
    found = [(_deflated(elements), 0)]
    if len(values) <= MOST_VALUES:
        found.append((values.tobytes() + _deflated(codes.astype(code_type(len(values)))), len(values)))
    best = min(found, key=lambda each: len(each[0]))
    return best if len(best[0]) <= WORTHWHILE * elements.nbytes else None


def _promises(elements: np.ndarray) -> bool:
    """Whether elements at even distances repeat one another."""
    sample = elements[:: max(len(elements) // SAMPLE, 1)]
    return len(np.unique(sample)) <= MOST_DIFFERENT * len(sample)


def _deflated(elements: np.ndarray) -> bytes:
    """The bytes of elements, first bytes first, with matches or without, whichever is shorter."""
    planes = np.ascontiguousarray(elements.view(np.uint8).reshape(len(elements), -1).T)
    strategies = zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY
    return min((_deflate(planes, strategy) for strategy in strategies), key=len)


def _deflate(planes: np.ndarray, strategy: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
    return packer.compress(planes.data) + packer.flush()

"""Weights as artifacts store them: what has few different elements as a codebook and deflated codes, the rest as it is.

`graphopt_runtime.coding` decodes them as they are loaded.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt_runtime.coding import MOST_VALUES, Coding, Part, code_type
from graphopt_runtime.expansion import Expansion, expand

WORTHWHILE = 0.95
"""Of the bytes of a constant, at most what its code may take."""

WORTHWHILE_AT_ALL = 0.75
"""Of all bytes, at most what codes may take: weights that are coded can not be mapped from the file."""

SAMPLE = 1 << 14
"""Elements from which it is guessed what codes of a constant would take, and whether it has few different ones."""

RUNS = 64
"""Of neighbours, that such a sample has."""

MISJUDGED = 0.05
"""Of all bytes, what samples may promise too little."""

MOST_DIFFERENT = 0.75
"""Of a sample, the share of different elements from which on there is nothing to gain."""


@dataclass(frozen=True)
class Origin:
    """The float32 `numbers` that a constant is computed from, and how: it is `expanded`."""

    numbers: np.ndarray
    matrix: np.ndarray
    expansion: Expansion

    @property
    def expanded(self) -> np.ndarray:
        """What becomes of them."""
        return expand(self.numbers, self.matrix, self.expansion)


@dataclass(frozen=True)
class Segment:
    """Where a constant lies among the weights, the bytes of one of its elements, and what it is computed from, if that is known."""

    offset: int
    size: int
    item: int
    origin: Origin | None = None


@dataclass(frozen=True)
class Coded:
    """What is stored, and how to read it."""

    stored: bytes
    coding: Coding


def encode(weights: bytes, segments: Sequence[Segment]) -> Coded | None:
    """The weights in coded form; None where that would not be much smaller, as samples of runs of neighbours tell. All but the `segments`
    are zeros.

    The same weights give the same bytes.
    """
    if not segments:
        return None
    whole, parts, pieces = memoryview(weights), list[Part](), list[bytes | memoryview]()
    most = (WORTHWHILE_AT_ALL + MISJUDGED) * len(weights)
    if sum(_expected(whole, segment) for segment in segments) > most:
        return None
    for segment in sorted(segments, key=lambda each: each.offset):
        span = whole[segment.offset : segment.offset + segment.size]
        piece, values, expansion = _packed(span, segment)
        pieces.append(piece)
        parts.append(Part(segment.offset, segment.size, len(piece), segment.item, values, expansion))
    if sum(map(len, pieces)) >= WORTHWHILE_AT_ALL * len(weights):
        return None
    return Coded(b"".join(pieces), Coding(len(weights), parts))


def _expected(whole: memoryview, segment: Segment) -> float:
    """The bytes that a constant would take, by a sample of it. A codebook, which is small, is not counted."""
    origin, span = segment.origin, whole[segment.offset : segment.offset + segment.size]
    elements = np.frombuffer(span, f"<u{segment.item}") if origin is None else origin.numbers.view(np.uint32)
    sample = np.concatenate([run[: SAMPLE // RUNS] for run in np.array_split(elements.ravel(), RUNS)])
    if not sample.size:
        return 0.0
    values, codes = _distinct(sample)
    lengths = [len(_deflated(sample))]
    if len(values) <= MOST_DIFFERENT * len(sample):
        lengths.append(len(_deflated(codes.astype(code_type(len(values))))))
    return float(elements.nbytes * min(1.0, min(lengths) / sample.nbytes))


_Packed = tuple[bytes, int]
"""Stored bytes, and how many values their codebook has."""


def _packed(span: memoryview, segment: Segment) -> tuple[bytes | memoryview, int | None, Expansion | None]:
    """What is stored of a constant, the values of its codebook, and what is done with them."""
    origin = segment.origin
    if origin is not None and (found := _shortest(origin.numbers.view(np.uint32))) is not None:
        return origin.matrix.astype("<f8").tobytes() + found[0], found[1], origin.expansion
    direct = _shortest(np.frombuffer(span, f"<u{segment.item}"))
    return (span, None, None) if direct is None else (*direct, None)


def _shortest(elements: np.ndarray) -> _Packed | None:
    """The code of some elements; None where it is not worth it."""
    if not elements.size or not _promises(elements):
        return None
    values, codes = _distinct(elements)
    found = [(_deflated(elements), 0)]
    if len(values) <= MOST_VALUES:
        found.append((values.tobytes() + _deflated(codes.astype(code_type(len(values)))), len(values)))
    best = min(found, key=lambda each: len(each[0]))
    return best if len(best[0]) <= WORTHWHILE * elements.nbytes else None


def _distinct(elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different elements in order, and the place among them of each."""
    if elements.itemsize > 2:
        return np.unique(elements, return_inverse=True)
    exists = np.bincount(elements) > 0
    return np.flatnonzero(exists).astype(elements.dtype), (np.cumsum(exists) - 1)[elements]


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

"""Decodes weights that an artifact stores as codebooks and deflated codes."""

import mmap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt_runtime.errors import ArtifactError
from graphopt_runtime.expansion import Expansion, expand, parse_expansion

MOST_VALUES = 1 << 16
"""Of a codebook."""

_ITEMS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Part:
    """A constant: where it lies among the weights, its bytes there and those stored, and the bytes of an element.

    `values` is None where the bytes are stored as they are. Else there are that many elements of a codebook, then, as a raw deflate
    stream, the lowest bytes of all codes, the next bytes, and so on; elements are their own codes where there is no codebook.

    With an `expansion` all this gives the float32 numbers that it starts from; its float64 matrix is stored in front.
    """

    offset: int
    size: int
    stored: int
    item: int
    values: int | None
    expansion: Expansion | None = None

    def to_json(self) -> list[Any]:
        """Plain types."""
        fields = [self.offset, self.size, self.stored, self.item, self.values]
        return fields if self.expansion is None else [*fields, self.expansion.to_json()]


@dataclass(frozen=True)
class Coding:
    """The bytes of all weights, and what is stored, one part after the other."""

    size: int
    parts: Sequence[Part]

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it."""
        return {"bytes": self.size, "parts": [part.to_json() for part in self.parts]}


def parse_coding(content: Any, stored: int) -> Coding:
    """That of a manifest, for a member of so many bytes. Raises ValueError for what no member of that size can be."""
    try:
        coding = Coding(content["bytes"], [_parse_part(*fields) for fields in content["parts"]])
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has no bytes, or no parts of five or six fields: {error}") from error
    end = 0
    for part in coding.parts:
        _check_part(part)
        if part.offset < end:
            raise ValueError(f"the part at {part.offset} overlaps another one")
        end = part.offset + part.size
    if type(coding.size) is not int or end > coding.size:
        raise ValueError(f"parts reach to {end} of {coding.size} bytes")
    if (found := sum(part.stored for part in coding.parts)) != stored:
        raise ValueError(f"parts have {found} bytes, {stored} are stored")
    return coding


def decode(stored: memoryview, coding: Coding, name: str) -> memoryview:
    """The weights, in pages of their own. Raises ArtifactError where the bytes are damaged."""
    whole = memoryview(mmap.mmap(-1, max(coding.size, 1)))
    start = 0
    for part in coding.parts:
        piece = stored[start : start + part.stored]
        start += part.stored
        try:
            _decode_part(piece, part, whole[part.offset : part.offset + part.size])
        except (zlib.error, ValueError) as error:
            raise ArtifactError(f"{name}: the weights at {part.offset} cannot be decoded: {error}") from error
    return whole[: coding.size]


def code_type(values: int) -> str:
    """The numpy type of the codes of a codebook."""
    return "<u1" if values <= 1 << 8 else "<u2"


def _parse_part(
    offset: int, size: int, stored: int, item: int, values: int | None, expansion: Any = None
) -> Part:
    return Part(offset, size, stored, item, values, None if expansion is None else parse_expansion(expansion))


def _check_part(part: Part) -> None:
    numbers = [part.offset, part.size, part.stored, part.item, part.values or 0]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers} are not all sizes")
    if part.item not in _ITEMS or part.size % part.item or part.offset % part.item:
        raise ValueError(
            f"no elements of {part.item} bytes lie at {part.offset} to {part.offset + part.size}"
        )
    if (part.values or 0) > MOST_VALUES:
        raise ValueError(f"a codebook of {part.values} values is too large")
    if part.values is None and part.stored != part.size:
        raise ValueError(f"{part.stored} bytes are stored of {part.size}")
    found = part.expansion
    if found is not None and (found.after * 4, 4, True) != (part.size, part.item, part.values is not None):
        raise ValueError(f"an expansion to {found.after} numbers does not give {part.size} bytes")


def _decode_part(piece: memoryview, part: Part, target: memoryview) -> None:
    if part.values is None:
        target[:] = piece
    elif part.expansion is None:
        _decode_elements(piece, part.values, np.frombuffer(target, f"<u{part.item}"))
    else:
        shape = part.expansion.points, part.expansion.taps
        matrix = np.frombuffer(piece, "<f8", shape[0] * shape[1]).reshape(shape)
        numbers = np.empty(part.expansion.before, "<u4")
        _decode_elements(piece[matrix.nbytes :], part.values, numbers)
        np.frombuffer(target, "<f4")[:] = expand(numbers.view("<f4"), matrix, part.expansion)


def _decode_elements(piece: memoryview, values: int, elements: np.ndarray[Any, Any]) -> None:
    """Fill elements from a codebook of so many values and codes, or from codes alone."""
    if not values:
        _planes(piece, elements)
        return
    book = np.frombuffer(piece, elements.dtype, values)
    codes = np.empty(len(elements), code_type(values))
    _planes(piece[book.nbytes :], codes)
    if len(codes) and codes.max() >= values:
        raise ValueError(f"code {codes.max()} of {values}")
    np.take(book, codes, out=elements, mode="clip")


def _planes(stream: memoryview, elements: np.ndarray[Any, Any]) -> None:
    """Fill elements with what a stream gives, first bytes first."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    found = inflater.decompress(stream, elements.nbytes or 1)
    if len(found) != elements.nbytes or not _ends(inflater):
        raise ValueError(f"the stream does not end after {elements.nbytes} bytes")
    planes = np.frombuffer(found, np.uint8).reshape(elements.itemsize, len(elements))
    elements.view(np.uint8).reshape(len(elements), elements.itemsize)[:] = planes.T


def _ends(inflater: Any) -> bool:
    """Whether nothing comes any more, and nothing is left over."""
    return not inflater.decompress(inflater.unconsumed_tail, 1) and inflater.eof and not inflater.unused_data
